"""GSM8K, the test split: Cobbe et al. 2021 (arXiv 2110.14168). Reads gsm8k/test.jsonl of the data folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reason_engine.answers import Equality
from reason_engine.evals import tasks
from reason_engine.evals.datasets.load import chosen, find_file, read_lines
from reason_engine.types import Problem


@tasks.register("gsm8k")
class Gsm8k(BaseModel):
    """Grade-school word problems; the reference stands after `####`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        rows = read_lines(find_file(data, "gsm8k/test.jsonl", "gsm8k"), ("question", "answer"))
        return [
            Problem(
                rows[index]["question"],
                reference=rows[index]["answer"].rpartition("####")[2].strip(),
                task="gsm8k",
                meta={"index": index},
            )
            for index in chosen(len(rows), limit, seed)
        ]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values; references are bare numbers, so a percent sign is dropped."""
        return answer is not None and await equality.same(answer.rstrip("%"), problem.reference or "")
