"""What only the bundled model needs: a file for each kind of problem, with its generator and its evaluation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

from reason_engine.evals.datasets import EqualityTask
from reason_engine.types import Problem


class GeneratedTask(EqualityTask):
    """Problems are generated afresh, from seeds that training never uses: problem i depends on the seed and i alone. A
    subclass names its seeds and draws one problem."""

    seeds: ClassVar[str]

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit."""
        return self._generate(f"eval-{self.seeds}-{seed}", limit or 1000)

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation; 200 without a limit."""
        return self._generate(f"dev-{self.seeds}-{seed}", limit or 200)

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One problem."""
        raise NotImplementedError

    def _generate(self, prefix: str, count: int) -> list[Problem]:
        return [self.generate(random.Random(f"{prefix}-{index}"), index) for index in range(count)]
