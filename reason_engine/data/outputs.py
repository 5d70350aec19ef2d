"""OUT and the files beside it that account for it, and the journal by which a long run goes on after a kill.

Each output takes its name only when it is whole. Every finished attempt of a run that asks a model is one line of the
journal, written at once. The rows are made from the journal at the end, in the order of the plan: the same whatever the
concurrency and however often the run was broken off. The journal's first line says what run it is; a run with another
input, model or config does not go on with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from reason_engine.data.formats.readers import Fault, RowFile
from reason_engine.data.formats.rows import Row
from reason_engine.errors import SetupError, first_error
from reason_engine.jsonl import JsonLines

T = TypeVar("T")
Place = Mapping[str, Any]
"""Where a row stands: `file` and `line`, or what was written in its place."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row or an attempt is dropped."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


def bad_row(fault: Fault | None) -> Refusal:
    """The refusal of a row that cannot be read."""
    assert fault is not None
    return Refusal("bad-row", {"field": fault.field, "message": fault.message})


class Outputs:
    """Kept rows to OUT, dropped ones to `.dropped.jsonl`; `finish` writes the report and gives all their names."""

    def __init__(self, out: Path, inputs: Sequence[Path]) -> None:
        """Raises SetupError where a file to be written is one of those that are read."""
        self._files = {"": out, "dropped": beside(out, "dropped")}
        self._report = beside(out, "report", ".json")
        read = {path.resolve() for path in inputs}
        for path in (*self._files.values(), self._report):
            if path.resolve() in read:
                raise SetupError(f"OUT {out}: {path} is read, so it cannot be written")
        self._open: dict[str, IO[str]] = {}

    def __enter__(self) -> Self:
        try:
            for name, path in self._files.items():
                self._open[name] = _part(path).open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            self.__exit__(None, None, None)
            raise SetupError(f"OUT {error.filename}: {error.strerror}") from None
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for name, file in self._open.items():
            file.close()
            _part(self._files[name]).unlink(missing_ok=True)
        if isinstance(error, OSError):  # the disk is full, or the folder was taken away
            raise SetupError(f"OUT {self._files['']}: {error.strerror}; nothing was kept") from None

    def keep(self, row: Mapping[str, Any]) -> None:
        """A row of OUT."""
        self._put("", row)

    def drop(self, refusal: Refusal, place: Place, what: Mapping[str, Any]) -> None:
        """What is not kept, with its place, reason, evidence and whatever else tells of it."""
        self._put("dropped", {**place, "reason": refusal.reason, "evidence": dict(refusal.evidence), **what})

    def _put(self, name: str, row: Mapping[str, Any]) -> None:
        self._open[name].write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, report: Mapping[str, Any]) -> None:
        """The report, and every file under its name."""
        for name, file in self._open.items():
            file.close()
            os.replace(_part(self._files[name]), self._files[name])
        self._open.clear()
        part = _part(self._report)
        part.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
        os.replace(part, self._report)


@dataclass(frozen=True, slots=True)
class Account:
    """attempts = kept + dropped. `not_attempted`: what the budget left undone; the run goes on with a larger one."""

    run: str
    rows: int
    bad_rows: int
    attempts: int
    kept: int
    dropped: int
    not_attempted: int
    by_reason: Mapping[str, int]
    tokens: int
    statement: str
    model: str
    config: Mapping[str, Any]
    problems: Mapping[str, int] = field(default_factory=dict[str, int])

    def describe(self) -> str:
        """The account as text."""
        lines = [
            f"  {self.statement}",
            f"rows {self.rows}, bad {self.bad_rows}",
            *(f"  problems {name:<18} {count}" for name, count in self.problems.items()),
            f"attempts {self.attempts} = kept {self.kept} + dropped {self.dropped}; {self.tokens} tokens",
            *(f"  dropped  {reason:<18} {count}" for reason, count in sorted(self.by_reason.items())),
        ]
        if left := self.not_attempted:
            lines.append(f"not attempted, since the budget is spent: {left}; run again with more")
        return "\n".join(lines)


class Tally:
    """Counts the rows read and the attempts kept and dropped while the outputs are written. What was no attempt, such
    as a row that cannot be read, is dropped by the outputs alone."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs
        self.rows = self.bad = self.kept = self.not_attempted = 0
        self._reasons: Counter[str] = Counter()

    def read(self, file: RowFile) -> Iterator[tuple[Place, Row, Mapping[str, Any]]]:
        """(place, row, the mapping it was read from) of every good row; bad ones are noted as dropped."""
        for found in file:
            self.rows += 1
            place = {"file": str(file.path), "line": found.line}
            if found.row is None:
                self.bad += 1
                self.outputs.drop(bad_row(found.fault), place, {"row": found.raw})
            else:
                yield place, found.row, found.raw or {}

    def keep(self, row: Mapping[str, Any]) -> None:
        """An attempt that came to a row."""
        self.kept += 1
        self.outputs.keep(row)

    def drop(self, refusal: Refusal, place: Place, what: Mapping[str, Any]) -> None:
        """An attempt that came to nothing."""
        self._reasons[refusal.reason] += 1
        self.outputs.drop(refusal, place, what)

    def finish(
        self, head: Mapping[str, Any], file: RowFile, tokens: int, problems: Mapping[str, int] | None = None
    ) -> Account:
        """Write the report and give the files their names. `head` is the journal's first line."""
        dropped = self._reasons.total()
        account = Account(
            head["run"], self.rows, self.bad, self.kept + dropped, self.kept, dropped, self.not_attempted,
            dict(self._reasons), tokens, file.statement, head["model"], head["config"], problems or {},
        )  # fmt: skip
        self.outputs.finish(asdict(account))
        return account


class Journal:
    """Finished attempts by key. `spent` are the tokens of all of them, of those that a budget cut as well."""

    def __init__(self, path: Path, head: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Raises SetupError where the file belongs to another run or is no journal."""
        self.path, self.spent = path, 0
        self._file, self._starts = JsonLines(path), dict[str, int]()
        try:
            if fresh:
                path.unlink(missing_ok=True)
            if path.exists():
                self._load(json.loads(json.dumps(head)))
            path.open("ab").close()  # says at once where it cannot be written
            if not path.stat().st_size:
                self._file.append(head)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}") from None

    def __contains__(self, key: str) -> bool:
        return key in self._starts

    def entry(self, key: str) -> dict[str, Any] | None:
        """What an attempt came to; None where it was not made yet."""
        return self._file.value_at(self._starts[key]) if key in self._starts else None

    def add(self, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a finished attempt; the entry as it will be read again."""
        found = {"key": key, **entry}
        self._starts[key] = self._file.append(found)
        self.spent += entry.get("tokens", 0)
        return json.loads(json.dumps(found))

    def spend(self, tokens: int) -> None:
        """Account for an attempt that was cut and will be made again."""
        self._file.append({"tokens": tokens})
        self.spent += tokens

    def _load(self, head: Mapping[str, Any]) -> None:
        for line in self._file.lines("cut"):
            try:
                entry = line.value()
            except ValueError:
                raise SetupError(f"{self.path}:{line.number}: not a line of a journal") from None
            if line.number == 1:
                self._compare(entry, head)
                continue
            if "key" in entry:
                self._starts[entry["key"]] = line.start
            self.spent += entry.get("tokens", 0)

    def _compare(self, found: Any, head: Mapping[str, Any]) -> None:
        if not isinstance(found, dict) or "run" not in found:
            raise SetupError(f"{self.path}: is no journal; choose another OUT")
        if other := sorted(key for key in {*found, *head} if found.get(key) != head.get(key)):
            raise SetupError(
                f"{self.path}: belongs to a run with another {', '.join(other)}; "
                "choose another OUT, or begin anew with --fresh"
            )


async def work_through(items: Iterable[T], workers: int, work: Callable[[T], Awaitable[bool]]) -> bool:
    """Work on every item, `workers` at once; True where none said to stop. Raises the first error, ungrouped."""
    waiting, going = iter(items), True

    async def worker() -> None:
        nonlocal going
        for item in waiting:
            if not going:
                return
            going = await work(item) and going

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return going


def beside(out: Path, name: str, suffix: str = ".jsonl") -> Path:
    """`rows.jsonl` -> `rows.dropped.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.{name}{suffix}")


def file_hash(path: Path) -> str:
    """A short hash of a file's bytes. Raises SetupError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from None


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
