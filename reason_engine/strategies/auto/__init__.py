"""`auto` chooses strategy and size itself: by the model's calibration, by a task's checker, or by agreement."""

from __future__ import annotations

from reason_engine.strategies.auto.certainty import certainty
from reason_engine.strategies.auto.strategy import Auto

__all__ = ["Auto", "certainty"]
