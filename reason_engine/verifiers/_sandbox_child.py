"""The program of the sandbox's process: `python -I -S _sandbox_child.py spaces|plain`.

Loads the few files that it needs without the package around them, whose imports are heavy, and starts the warden.
"""

from __future__ import annotations

import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    for name, folder in (("reason_engine", os.path.dirname(HERE)), ("reason_engine.verifiers", HERE)):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package

    from reason_engine.verifiers._sandbox_warden import main

    main(spaces=sys.argv[1] == "spaces")
