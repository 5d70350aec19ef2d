"""Amounts in several units, to be said in the smallest, from those that training never draws.

How many seconds are 2 hours, 5 minutes and 30 seconds?      ->      7530
"""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reason_engine.answers import Equality
from reason_engine.data.units import Kind, conversion
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.types import Problem


@tasks.register("units")
class Units(BaseModel):
    """`levels`: factors to multiply by. `kind`: of amounts; none for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: Range = Field((1, 2))
    kind: Kind | None = None

    @field_validator("levels")
    @classmethod
    def known(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] > 2:
            raise ValueError("levels are 1, 2 or both")
        return value

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [self._problem(index, f"eval-units-{seed}-{index}") for index in range(limit or 1000)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [self._problem(index, f"dev-units-{seed}-{index}") for index in range(limit or 200)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")

    def _problem(self, index: int, seed: str) -> Problem:
        rng = random.Random(seed)
        one = conversion(rng, rng.randint(*self.levels), (self.kind,) if self.kind else (), held_out=True)
        return Problem(one.question, reference=str(one.answer), task="units", meta={"index": index})
