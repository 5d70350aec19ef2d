"""SVAMP, one step with distracting numbers: Patel et al. 2021 (arXiv 2103.07191). Reads svamp/SVAMP.json."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reason_engine.answers import Equality
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets.load import chosen, find_file, read_text
from reason_engine.types import Problem


@tasks.register("svamp")
class Svamp(BaseModel):
    """All 1,000 problems are the test set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        path = find_file(data, "svamp/SVAMP.json", "svamp")
        try:
            rows = json.loads(read_text(path))
            return [
                Problem(
                    f"{rows[index]['Body'].strip().rstrip('.')}. {rows[index]['Question'].strip()}",
                    reference=str(Fraction(rows[index]["Answer"])),
                    task="svamp",
                    meta={"index": index},
                )
                for index in chosen(len(rows), limit, seed)
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SetupError(f"{path}: not the SVAMP file: {type(error).__name__}: {error}") from None

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values; references are bare numbers, so a percent sign is dropped."""
        return answer is not None and await equality.same(answer.rstrip("%"), problem.reference or "")
