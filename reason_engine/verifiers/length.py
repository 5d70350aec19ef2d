"""`length`: how long a path is, min(1, tokens / target), or how short, one minus that.

A part of a composite: against rambling, or against answers cut short. Alone it is the classic reward that a policy
learns to hack (Singhal et al. 2023, arXiv:2310.03716).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from reason_engine.contracts import Call
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers


@verifiers.register("length")
class Length(BaseModel, extra="forbid", frozen=True):
    """In [0, 1], by tokens; characters count where the engine tells no tokens."""

    target: int = Field(256, ge=1, le=1_000_000, description="tokens from which on a path is long")
    prefer: Literal["long", "short"] = Field("short", description="which scores high")

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """One score a path."""
        shares = [min(1.0, (path.tokens or len(path.text)) / self.target) for path in paths]
        return [Score(share if self.prefer == "long" else 1 - share, "length") for share in shares]
