"""The program of the sandbox's process: `python -I -S child.py spaces|plain`.

Loads the few files that it needs without the package around them, whose imports are heavy, and starts the warden.
"""

from __future__ import annotations

import os
import sys
import types

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    parts = ("reason_engine", "verifiers", "sandbox")
    for depth in range(len(parts)):
        name, folder = ".".join(parts[: depth + 1]), os.path.join(HERE, *[".."] * (len(parts) - 1 - depth))
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package

    from reason_engine.verifiers.sandbox.supervisor import main

    main(spaces=sys.argv[1] == "spaces")
