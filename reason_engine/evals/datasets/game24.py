"""Game of 24: the puzzles of 24.csv by index from 0 (its Rank - 1); 900 to 999 are the test set.

Data and split: Yao et al. 2023, Tree of Thoughts (arXiv 2305.10601), section 4.1. Two tasks with one grade differ in
their wording. An answer counts only if its expression uses each number exactly once and equals 24.

    Use the numbers 4 5 6 10 and + - * / to make 24.      ->      (10 - 4) * 5 - 6 = 24
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from reason_engine.answers import Equality
from reason_engine.data import Options
from reason_engine.data.numbers import games
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets import choose_indices, find_file, read_text
from reason_engine.types import Problem
from reason_engine.verifiers.countdown import Countdown


@tasks.register("game24")
class Game24(Options):
    """`first` and `last` index of the puzzles, both included."""

    wording: ClassVar[str] = "Use the numbers {numbers} and + - * / to make 24."

    first: int = Field(900, ge=0)
    last: int = Field(999, ge=0)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """Raises SetupError where 24.csv is missing or is not what it should be."""
        path = find_file(data, "game24/24.csv", "game24")
        puzzles = [row.get("Puzzles") or "" for row in csv.DictReader(read_text(path).splitlines())]
        if not self.first <= self.last < len(puzzles):
            raise SetupError(f"task 'game24': first-last {self.first}-{self.last} is not within 0-{len(puzzles) - 1}")
        span = range(self.first, self.last + 1)
        chosen = [span[place] for place in choose_indices(len(span), limit, seed)]
        return [self._problem(path, index, puzzles[index]) for index in chosen]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Puzzles that neither training nor the test set uses."""
        rng = random.Random(f"dev-game24-{seed}")
        states = games(13, development=True)
        drawn = rng.sample(range(len(states)), min(limit or len(states), len(states)))
        puzzles = [(index, " ".join(map(str, rng.sample(states[index], 4)))) for index in sorted(drawn)]
        return [self._problem(Path("development"), index, puzzle) for index, puzzle in puzzles]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By exact arithmetic."""
        checker = Countdown(numbers=problem.meta["numbers"], target=problem.meta["target"])
        return answer is not None and checker.solved(answer)

    def _problem(self, path: Path, index: int, puzzle: str) -> Problem:
        numbers = puzzle.split()
        if len(numbers) != 4 or not all(number.isdecimal() for number in numbers):
            raise SetupError(f"{path}: puzzle {index} is {puzzle!r}, not four numbers")
        meta = {"index": index, "numbers": tuple(map(int, numbers)), "target": 24}
        return Problem(self.wording.format(numbers=" ".join(numbers)), task="game24", meta=meta)


@tasks.register("game24-tot")
class Game24Tot(Game24):
    """The same in the wording of the tree-of-thoughts paper."""

    wording: ClassVar[str] = "Use numbers and basic arithmetic operations (+ - * /) to obtain 24. Input: {numbers}"
