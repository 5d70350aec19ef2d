"""Countdown: three or four numbers to a random target, generated afresh; graded by exact arithmetic.

    Countdown: use 3 7 9 to reach 48.      ->      (9 + 7) * 3 = 48

Training draws from the same generator under other seeds, and there are few sets of small numbers: this measures
reasoning within the family, not generalisation to unseen puzzles. `game24` holds puzzles that training never sees.
"""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import Equality
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.recipes.puzzles import ask, countdown
from reason_engine.types import Problem
from reason_engine.verifiers.countdown import Countdown as Checker


@tasks.register("countdown")
class Countdown(BaseModel):
    """`size`: how many numbers. `highest`: the largest number. `top`: the largest target."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Range = Field((3, 4))
    highest: int = Field(13, ge=4, le=25)
    top: int = Field(120, ge=10, le=1000)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [
            self._problem(index, random.Random(f"eval-countdown-{seed}-{index}"))
            for index in range(limit or 1000)
        ]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [
            self._problem(index, random.Random(f"dev-countdown-{seed}-{index}"))
            for index in range(limit or 200)
        ]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By exact arithmetic."""
        checker = Checker(numbers=problem.meta["numbers"], target=problem.meta["target"])
        return answer is not None and checker.solved(answer)

    def _problem(self, index: int, rng: random.Random) -> Problem:
        sizes = tuple(range(self.size[0], self.size[1] + 1))
        state, target = countdown(rng, sizes, self.highest, self.top)
        meta = {"index": index, "numbers": tuple(int(n) for n in state), "target": target}
        return Problem(ask(rng, state, target), task="countdown", meta=meta)
