"""Public data sets and the user's own rows as tasks. Here: reading the user's copies of public sets, choosing the
problems of a run, and what tasks have in common. Nothing is downloaded."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from reason_engine.answers import AnswerKind, Equality
from reason_engine.data import Options
from reason_engine.errors import SetupError
from reason_engine.types import Problem


def _range(value: object) -> object:
    """`3-5`, `4` and `[3, 5]` are ranges, both ends included."""
    if isinstance(value, str):
        low, dash, high = value.partition("-")
        value = (low, high if dash else low)
    elif isinstance(value, int):
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = (int(end) if str(end).strip().isdecimal() else -1 for end in value)
        if 1 <= low <= high:
            return low, high
    raise ValueError("expected a range such as 3-5")


Range = Annotated[tuple[int, int], BeforeValidator(_range)]


class EqualityTask(Options):
    """A task that grades by equality of values, of the kind that its problems name."""

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By algebra, not by text."""
        kind = kind_of(problem)
        return answer is not None and await equality.same(answer, problem.reference or "", kind)


def kind_of(problem: Problem) -> AnswerKind | None:
    """The kind of answer that a problem's task knows, if it does."""
    return problem.meta.get("answer_kind")


def choose_indices(count: int, limit: int | None, seed: int) -> list[int]:
    """Which of `count` problems a run takes: all, or `limit` of them at random by the seed; ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(f"eval-{seed}").sample(range(count), limit))


def choose_problems(
    task: str, known: Sequence[tuple[str, str]], limit: int | None, seed: int, kind: AnswerKind
) -> list[Problem]:
    """Of all questions with their references those that a run takes; their answers are of one kind."""
    return [
        Problem(known[index][0], reference=known[index][1], task=task, meta={"index": index, "answer_kind": kind})
        for index in choose_indices(len(known), limit, seed)
    ]


def find_file(data: Path | None, name: str, task: str) -> Path:
    """The file `name` below the data folder. Raises SetupError that says what is missing."""
    if data is None:
        raise SetupError(f"task {task!r} needs --data DIR, a folder that holds {name}")
    path = data / name
    if not path.is_file():
        raise SetupError(f"task {task!r}: {path} does not exist; --data must be a folder that holds {name}")
    return path


def read_text(path: Path) -> str:
    """The text of a file, which gzip may have compressed. Raises SetupError."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None


def read_lines(path: Path, fields: Sequence[str]) -> list[Mapping[str, Any]]:
    """The objects of a JSON-lines file, each with these fields of text. Raises SetupError naming the line."""
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SetupError(f"{path}:{number}: not JSON: {error}") from None
        for name in fields:
            if not isinstance(row, dict) or not isinstance(row.get(name), str):
                raise SetupError(f"{path}:{number}: the text field {name!r} is missing")
        rows.append(row)
    return rows
