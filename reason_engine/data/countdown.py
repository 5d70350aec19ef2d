"""Game of 24 and Countdown: by steps, each line naming what is left, or the finished expression at once.

Use the numbers 4 5 6 10 and + - * / to make 24.
Think step by step.
->
10 - 4 = 6 (left: 5 6 6)
6 * 5 = 30 (left: 6 30)
30 - 6 = 24 (left: 24)
Answer: (10 - 4) * 5 - 6 = 24
"""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data._puzzles import ask, countdown, game, solution
from reason_engine.data.formats import STEPS, Example


@families.register("countdown")
class Countdown(BaseModel):
    """Share `game` of the puzzles has four numbers and the target 24, the rest three or four and another target."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: bool = True
    game: float = Field(0.6, ge=0, le=1)
    highest: int = Field(13, ge=4, le=25)
    top: int = Field(120, ge=10, le=1000)

    def example(self, rng: random.Random) -> Example:
        if rng.random() < self.game:
            state, target = game(rng, self.highest)
        else:
            state, target = countdown(rng, (3, 4, 4), self.highest, self.top)
        question = ask(rng, state, target)
        lines, expression = solution(rng, state, target)
        if not self.steps:
            return Example(question, f"Answer: {expression}", "countdown")
        return Example(f"{question}\n{STEPS}", "\n".join([*lines, f"Answer: {expression}"]), "countdown")
