"""Judgements that take a word: whether numbers can make a target. Thinking longer does not help there.

Can 4 4 10 make 24?      ->      yes

States are what lines from puzzles lead to that neither training nor the test set of Game of 24 begins with.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reason_engine.answers import Equality
from reason_engine.data.numbers import State, games, moves, reachable
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.recipes.puzzles import show
from reason_engine.types import Problem

LARGEST = 60
"""Of the numbers that a line may lead to: larger ones are seldom proposed."""


@tasks.register("judgement")
class Judgement(BaseModel):
    """`size`: how many numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Range = Field((2, 3))

    @field_validator("size")
    @classmethod
    def drawn(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] > 3:
            raise ValueError("states hold at most 3 numbers")
        return value

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [self._problem(index, f"eval-judgement-{seed}-{index}") for index in range(limit or 1000)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [self._problem(index, f"dev-judgement-{seed}-{index}") for index in range(limit or 200)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By the first `yes` or `no` of the text."""
        found = re.search(r"\b(?:yes|no)\b", text.casefold())
        return found is not None and found[0] == problem.reference

    def _problem(self, index: int, seed: str) -> Problem:
        rng = random.Random(seed)
        wanted, size = rng.random() < 0.5, rng.randint(*self.size)
        state = _state(rng, size)
        while (24 in reachable(state)) != wanted:
            state = _state(rng, size)
        reference = "yes" if wanted else "no"
        return Problem(
            f"Can {show(state)} make 24?", reference=reference, task="judgement", meta={"index": index}
        )


def _state(rng: random.Random, size: int) -> State:
    """What some lines from a puzzle lead to, as a search meets it."""
    state = rng.choice(games(13, development=True))
    while len(state) > size:
        state = rng.choice([after for _, _, _, value, after in moves(state) if value <= LARGEST])
    return state
