"""Test-time reasoning over open models: strategies, engines, a server, training and compression.

Importing this module loads nothing; a public name is imported when it is first used.

    from reason_engine import Problem, open_engine, solve_sync
    from reason_engine.strategies import strategies

The registries keep the name of their package, so they are imported from there: a name cannot be both.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reason_engine.contracts import Engine, Verifier
    from reason_engine.engines.open import open_engine
    from reason_engine.errors import ReasonError
    from reason_engine.profile import Profile, read_profile
    from reason_engine.runtime.solve import Outcome, solve, solve_sync
    from reason_engine.settings import Settings, load_settings
    from reason_engine.strategies import Strategy
    from reason_engine.types import Answer, Limits, Message, Problem, Sampling

__version__ = "0.1.0"

_HOME = {
    "Answer": "types", "Engine": "contracts", "Limits": "types", "Message": "types", "Outcome": "runtime.solve",
    "Problem": "types", "Profile": "profile", "ReasonError": "errors", "Sampling": "types", "Settings": "settings",
    "Strategy": "strategies", "Verifier": "contracts", "load_settings": "settings", "open_engine": "engines.open",
    "read_profile": "profile", "solve": "runtime.solve", "solve_sync": "runtime.solve",
}  # fmt: skip

__all__ = [
    "Answer", "Engine", "Limits", "Message", "Outcome", "Problem", "Profile", "ReasonError", "Sampling", "Settings",
    "Strategy", "Verifier", "load_settings", "open_engine", "read_profile", "solve", "solve_sync",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'reason_engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"reason_engine.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
