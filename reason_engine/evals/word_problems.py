"""Word problems, generated afresh from seeds that training never uses; `steps` and `digits` set the difficulty.

Anna has 12 apples. She buys 25 more. She gives 7 to Ben. How many apples does Anna have now?      ->      30
"""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import Equality
from reason_engine.data.words import word_problem
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.types import Problem


@tasks.register("word-problems")
class WordProblems(BaseModel):
    """`steps`: equations that a problem needs. `digits`: of the numbers in its text. Both drawn evenly per problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Range = Field((1, 8))
    digits: Range = Field((1, 3))

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [self._problem(index, f"eval-words-{seed}-{index}") for index in range(limit or 1000)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [self._problem(index, f"dev-words-{seed}-{index}") for index in range(limit or 200)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")

    def _problem(self, index: int, seed: str) -> Problem:
        rng = random.Random(seed)
        steps, digits = rng.randint(*self.steps), rng.randint(*self.digits)
        problem = word_problem(rng, steps, digits)
        meta = {"index": index, "steps": steps, "digits": digits}
        return Problem(problem.question, reference=str(problem.answer), task="word-problems", meta=meta)
