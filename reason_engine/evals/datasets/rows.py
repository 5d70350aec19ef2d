"""The user's own problems with their answers, in any format of the package: `rows:file=judged.jsonl`.

{"prompt": "Is this a complaint? …", "answer": "yes"}      ->      yes
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from reason_engine.answers import AnswerKind, Equality, find, infer
from reason_engine.data import Options
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Reference, question_of
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets import choose_indices
from reason_engine.types import Problem


@tasks.register("rows")
class Rows(Options):
    """`file`: prompts with answers, or conversations whose last turn holds the right one. `format`: where it should
    not be detected. `kind`: of the answers, where they are to be read as such rather than as they stand."""

    file: Path = Field(description="Problems and their answers")
    format: str | None = None
    kind: AnswerKind | None = None

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """All, or `limit` of them drawn by the seed. Raises SetupError naming the line that cannot be used."""
        rows: list[Reference | Conversation] = list(read_rows(self.file, Reference, Conversation, format=self.format))
        return [_problem(rows[index], index, self.kind) for index in choose_indices(len(rows), limit, seed)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """The same: the file is the user's, who says which problems something is fitted to."""
        return self.problems(limit, seed, None)

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values, of the question's kind too; a text that marks no answer is one."""
        right = problem.reference or ""
        for kind in dict.fromkeys((self.kind, infer(problem.question).kind)):
            if answer is not None and await equality.same(answer, right, kind):
                return True
        return class_name(answer, text) == class_name(None, right)


def class_name(answer: str | None, text: str) -> str:
    """What was answered, without case, outer space and a last full stop: the name of a class."""
    return " ".join((answer if answer is not None else text).casefold().split()).rstrip(".")


def _problem(row: Reference | Conversation, index: int, kind: AnswerKind | None) -> Problem:
    if row.prompt[-1].role != "user":
        raise SetupError(f"row {index + 1}: a prompt must end with the user's turn")
    text = row.answer if isinstance(row, Reference) else row.answer.content
    reference, meta = find(text, kind) or text.strip(), {"index": index, "answer_kind": kind}
    return Problem(question_of(row), row.prompt[:-1], reference=reference, task="rows", meta=meta)
