"""Public test sets of word problems and competition mathematics, read from the user's data folder.

GSM8K, the test split: Cobbe et al. 2021 (arXiv 2110.14168); gsm8k/test.jsonl.
SVAMP, one step with distracting numbers: Patel et al. 2021 (arXiv 2103.07191); svamp/SVAMP.json.
MATH-500: 500 test problems of MATH (Hendrycks et al. 2021, arXiv 2103.03874) as chosen by Lightman et al. 2023
(arXiv 2305.20050); math500/test500.jsonl.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets import EqualityTask, choose_problems, find_file, read_lines, read_text
from reason_engine.types import Problem


class NumberTask(EqualityTask):
    """A task whose references are bare numbers."""

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values; references are bare numbers, so a percent sign is dropped."""
        return await super().grade(problem, answer and answer.rstrip("%"), text, equality)


@tasks.register("gsm8k")
class Gsm8k(NumberTask):
    """Grade-school word problems; the reference stands after `####`."""

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        rows = read_lines(find_file(data, "gsm8k/test.jsonl", "gsm8k"), ("question", "answer"))
        known = [(row["question"], row["answer"].rpartition("####")[2].strip()) for row in rows]
        return choose_problems("gsm8k", known, limit, seed, "number")


@tasks.register("svamp")
class Svamp(NumberTask):
    """All 1,000 problems are the test set."""

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        path = find_file(data, "svamp/SVAMP.json", "svamp")
        try:
            known = [
                (f"{row['Body'].strip().rstrip('.')}. {row['Question'].strip()}", str(Fraction(row["Answer"])))
                for row in json.loads(read_text(path))
            ]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SetupError(f"{path}: not the SVAMP file: {type(error).__name__}: {error}") from None
        return choose_problems("svamp", known, limit, seed, "number")


@tasks.register("math500")
class Math500(EqualityTask):
    """Competition mathematics."""

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        rows = read_lines(find_file(data, "math500/test500.jsonl", "math500"), ("problem", "answer"))
        return choose_problems("math500", [(row["problem"], row["answer"]) for row in rows], limit, seed, "expression")
