"""An equal mix of questions that want different strategies: answered in a word, by a few equations, by search.

`judgement`, `word-problems` and `game24` in turn. One fixed strategy is wrong for some of them; `auto` is to choose.
The report has a row for each part as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from reason_engine.answers import Equality
from reason_engine.data import Options
from reason_engine.evals import tasks
from reason_engine.evals.datasets import Range
from reason_engine.evals.datasets.game24 import Game24
from reason_engine.recipes import GeneratedTask
from reason_engine.recipes.arithmetic import ArithmeticTask
from reason_engine.recipes.puzzles import Judgement
from reason_engine.recipes.words import WordProblems
from reason_engine.types import Problem


@tasks.register("mix")
class Mix(Options):
    """`direct`: what is answered in a word. `steps`, `digits`: of the word problems. `first`, `last`: puzzles."""

    direct: Literal["judgement", "arithmetic"] = "judgement"
    steps: Range = Field((5, 8))
    digits: Range = Field((1, 2))
    first: int = Field(900, ge=0)
    last: int = Field(999, ge=0)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """A third of the limit from each part (no fewer than one); 100 from each without a limit."""
        size = max(1, limit // 3) if limit else 100
        return _interleave([part.problems(size, seed, data) for part in self._parts().values()])

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """The same of the parts' development problems."""
        size = max(1, limit // 3) if limit else 80
        return _interleave([part.development(size, seed) for part in self._parts().values()])

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """As the part grades it."""
        return await self._parts()[problem.task or ""].grade(problem, answer, text, equality)

    def _parts(self) -> dict[str, GeneratedTask | Game24]:
        arithmetic = ArithmeticTask(operations=(1, 1), digits=(1, 2))
        direct = Judgement(size=(2, 3)) if self.direct == "judgement" else arithmetic
        words = WordProblems(steps=self.steps, digits=self.digits)
        return {self.direct: direct, "word-problems": words, "game24": Game24(first=self.first, last=self.last)}


def _interleave(parts: Sequence[Sequence[Problem]]) -> list[Problem]:
    """One of each part in turn; the place in the mix is the index."""
    return [
        replace(problem, meta={**problem.meta, "index": index, "part": problem.task})
        for index, problem in enumerate(chain.from_iterable(zip(*parts, strict=False)))
    ]
