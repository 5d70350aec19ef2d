"""Some samples of each step of an online run, in `out`/samples.jsonl, and a word where none is ever rewarded.

Of a group of samples the best and the worst are kept: what the reward likes, and what it does not. A step that is taken
again after a kill stands there once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from reason_engine.jsonl import JsonLines
from reason_engine.progress import OnProgress
from reason_engine.types import Path as SampledPath
from reason_engine.types import Problem

SAMPLES = "samples.jsonl"
PATIENCE = 3
"""Steps after which a reward that was never above 0 is told."""
QUOTED = 300
"""Characters of a sample that the note quotes."""


class _Task(Protocol):
    @property
    def problem(self) -> Problem: ...


class _Group(Protocol):
    @property
    def task(self) -> _Task: ...
    @property
    def paths(self) -> Sequence[SampledPath]: ...


class Samples:
    """`count` samples a step are kept; `step`: those after it are of a run that was killed, and are taken again."""

    def __init__(self, out: Path, count: int, step: int, tell: OnProgress) -> None:
        self._file, self._count, self._tell = JsonLines(out / SAMPLES), count, tell
        self._begun, self._rewarded = step, step > 0
        out.mkdir(parents=True, exist_ok=True)
        keep_until(self._file, "step", step)

    def keep(self, step: int, groups: Sequence[_Group], totals: Sequence[Sequence[float]]) -> None:
        """The samples of a step with their rewards."""
        rows = [row for _, row in zip(range(self._count), _rows(step, groups, totals), strict=False)]
        if rows:
            self._file.append(*rows)
        self._rewarded = self._rewarded or any(value > 0 for values in totals for value in values)
        if not self._rewarded and step == self._begun + PATIENCE:
            self._rewarded = True  # told once
            self._tell({"note": _never_rewarded(step, [*_rows(step, groups, totals)])})


def keep_until(file: JsonLines, key: str, last: int) -> int:
    """Drop the rows of a file after this value of a key, and what a kill cut short; the last row's step, or 0."""
    if not file.path.is_file():
        return 0
    lines = [*file.lines("cut")]
    rows: list[Mapping[str, Any]] = [row for line in lines if (row := line.value())[key] <= last]
    if len(rows) < len(lines):
        file.rewrite(rows)
    return int(rows[-1]["step"]) if rows else 0


def _rows(step: int, groups: Sequence[_Group], totals: Sequence[Sequence[float]]) -> Iterator[Mapping[str, Any]]:
    """Best and worst of each group in turn."""
    for group, rewards in zip(groups, totals, strict=True):
        order = sorted(range(len(rewards)), key=lambda at: -rewards[at])
        for at in dict.fromkeys((order[0], order[-1])):
            path, problem = group.paths[at], group.task.problem
            yield {
                "step": step, "question": problem.question, "reference": problem.reference, "text": path.text,
                "answer": path.answer, "reward": round(rewards[at], 4), "tokens": path.tokens,
                "finish": path.finish_reason,
            }  # fmt: skip


def _never_rewarded(step: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """With samples, so that one sees whether the task is too hard or the reward looks for another form."""
    said = [f"no sample of the first {step} steps was worth more than 0, so nothing can be learned from them"]
    for row in rows[:2]:
        said.append(f"  asked: {_short(row['question'])}")
        said.append(f"  wanted: {row['reference']}; read: {row['answer']}; {row['tokens']} tokens, {row['finish']}")
        said.append(f"  said: {_short(row['text'])}")
    return "\n".join([*said, "  an easier task, a longer max_tokens or a reward for the form may help"])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= QUOTED else f"{line[:QUOTED]} …"
