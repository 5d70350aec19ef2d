"""Judgements that take a word: whether numbers can make a target. Thinking longer does not help there.

Can 4 4 10 make 24?      ->      yes

States are drawn as for training, under other seeds: this measures reasoning within the family.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reason_engine.answers import Equality
from reason_engine.data.value import Value
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.types import Problem


@tasks.register("judgement")
class Judgement(BaseModel):
    """`size`: how many numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Range = Field((2, 3))

    @field_validator("size")
    @classmethod
    def drawn(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] > 4:
            raise ValueError("states hold at most 4 numbers")
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
        sizes = dict.fromkeys(range(self.size[0], self.size[1] + 1), 1.0)
        example = Value.model_validate({"sizes": sizes}).example(random.Random(seed))
        return Problem(example.question, reference=example.answer, task="judgement", meta={"index": index})
