"""Tasks whose problems are generated afresh, from seeds that training never uses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from reason_engine.answers import Equality
from reason_engine.types import Problem


class GeneratedTask(BaseModel):
    """Problem i depends on the seed and i alone. A subclass names its seeds and draws one problem."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: ClassVar[str]

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit."""
        return self._generate(f"eval-{self.seeds}-{seed}", limit or 1000)

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation; 200 without a limit."""
        return self._generate(f"dev-{self.seeds}-{seed}", limit or 200)

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One problem."""
        raise NotImplementedError

    def _generate(self, prefix: str, count: int) -> list[Problem]:
        return [self.generate(random.Random(f"{prefix}-{index}"), index) for index in range(count)]
