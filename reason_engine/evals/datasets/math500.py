"""MATH-500: 500 test problems of MATH (Hendrycks et al. 2021, arXiv 2103.03874) as chosen by Lightman et al. 2023
(arXiv 2305.20050). Reads math500/test500.jsonl; graded by algebra, not by text."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reason_engine.answers import Equality
from reason_engine.evals import tasks
from reason_engine.evals.datasets.load import chosen, find_file, read_lines
from reason_engine.types import Problem


@tasks.register("math500")
class Math500(BaseModel):
    """Competition mathematics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        rows = read_lines(find_file(data, "math500/test500.jsonl", "math500"), ("problem", "answer"))
        return [
            Problem(
                rows[index]["problem"], reference=rows[index]["answer"], task="math500", meta={"index": index}
            )
            for index in chosen(len(rows), limit, seed)
        ]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")
