"""Bare arithmetic, generated afresh from seeds that training never uses.

What is 12 + 5?      ->      17
"""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import Equality
from reason_engine.data.arithmetic import ASKED, expression
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.types import Problem


@tasks.register("arithmetic")
class Arithmetic(BaseModel):
    """`operations`: of the expression. `digits`: of its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operations: Range = Field((1, 1))
    digits: Range = Field((1, 2))

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [self._problem(index, f"eval-arithmetic-{seed}-{index}") for index in range(limit or 1000)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [self._problem(index, f"dev-arithmetic-{seed}-{index}") for index in range(limit or 200)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")

    def _problem(self, index: int, seed: str) -> Problem:
        rng = random.Random(seed)
        lines, text = expression(rng, rng.randint(*self.operations), self.digits)
        question = rng.choice(ASKED).format(text=text)
        return Problem(question, reference=str(lines[-1].value), task="arithmetic", meta={"index": index})
