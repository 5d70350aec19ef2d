"""What generates text: the embedded torch engine, vLLM, a remote endpoint, and a scripted one for tests.

Each module registers one class that implements `reason_engine.contracts.Engine`. Importing this package loads none of
them; modules whose name starts with an underscore are shared parts.
"""

from __future__ import annotations

from reason_engine.contracts import Engine
from reason_engine.registry import Registry

engines: Registry[Engine] = Registry("engine", "reason_engine.engines")
