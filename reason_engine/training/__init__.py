"""Training methods by name. Each is a frozen config and a trainer that writes a Hugging Face checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from reason_engine.progress import OnProgress, silent
from reason_engine.registry import Registry


class Method(Protocol):
    """A trainer with the class of its config: `Trainer` of the contracts, found by name."""

    config: ClassVar[type[BaseModel]]
    summary: ClassVar[str]

    @classmethod
    def train(cls, config: Any, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Train until the config's end; goes on from the checkpoint in `out` where there is one. The last metrics."""
        ...


trainers: Registry[Method] = Registry(
    "trainer", "reason_engine.training", "reason_engine.training.supervised", "reason_engine.training.online"
)

__all__ = ["Method", "trainers"]
