"""OUT and the files beside it that account for it; each takes its name only when it is whole.

The account of a run that makes rows: what was attempted, what came of it, and what it cost.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from reason_engine.errors import SetupError


def beside(out: Path, name: str, suffix: str = ".jsonl") -> Path:
    """`rows.jsonl` -> `rows.dropped.jsonl`."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.{name}{suffix}")


class Outputs:
    """Rows to OUT, and to the files `names` beside it; `finish` writes the report and names them all."""

    def __init__(self, out: Path, names: Sequence[str], inputs: Sequence[Path]) -> None:
        """Raises SetupError where a file to be written is one of those that are read."""
        self._files = {"": out, **{name: beside(out, name) for name in names}}
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, file in self._open.items():
            file.close()
            _part(self._files[name]).unlink(missing_ok=True)
        if isinstance(error, OSError):  # the disk is full, or the folder was taken away
            raise SetupError(f"OUT {self._files['']}: {error.strerror}; nothing was kept") from None

    def keep(self, row: Mapping[str, Any]) -> None:
        """A row of OUT."""
        self.put("", row)

    def put(self, name: str, row: Mapping[str, Any]) -> None:
        self._open[name].write(json.dumps(row, ensure_ascii=False) + "\n")

    def finish(self, report: Mapping[str, Any]) -> None:
        """The report, and every file under its name."""
        for name, file in self._open.items():
            file.close()
            os.replace(_part(self._files[name]), self._files[name])
        self._open.clear()
        text = json.dumps(report, indent=2, ensure_ascii=False)
        part = _part(self._report)
        part.write_text(text + "\n", "utf-8")
        os.replace(part, self._report)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an attempt is dropped."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """The account as text."""
        lines = [
            f"  {self.statement}",
            f"rows {self.rows}, bad {self.bad_rows}",
            *(f"  problems {name:<18} {count}" for name, count in self.problems.items()),
            f"attempts {self.attempts} = kept {self.kept} + dropped {self.dropped}; {self.tokens} tokens",
            *(f"  dropped  {reason:<18} {count}" for reason, count in sorted(self.by_reason.items())),
        ]
        if self.not_attempted:
            lines.append(
                f"not attempted, since the budget is spent: {self.not_attempted}; run again with more"
            )
        return "\n".join(lines)


class Tally:
    """Counts while the outputs are written."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.kept = self.not_attempted = 0
        self.reasons: Counter[str] = Counter()

    def keep(self, row: Mapping[str, Any]) -> None:
        self.kept += 1
        self._outputs.keep(row)

    def drop(self, refusal: Refusal, place: Mapping[str, Any], what: Mapping[str, Any]) -> None:
        """A dropped attempt with its place, reason, evidence and whatever else tells of it."""
        self.reasons[refusal.reason] += 1
        self.note(refusal, place, what)

    def note(self, refusal: Refusal, place: Mapping[str, Any], what: Mapping[str, Any]) -> None:
        """A row that was no attempt, such as one that cannot be read."""
        said = {"reason": refusal.reason, "evidence": dict(refusal.evidence)}
        self._outputs.put("dropped", {**place, **said, **what})
