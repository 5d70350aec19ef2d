"""One reader for every format and file kind: detects both, says what it found, and gives typed rows.

    source = open_source(Path("pairs.jsonl"))
    print(source.statement)          # pairs.jsonl: JSON lines; format preference (prompt, chosen, rejected): …
    for record in source: ...        # a row, or a fault with line, field and reason

    for row in read_rows(Path("pairs.jsonl"), Preference): ...       # strict: the first bad row raises

The format is that whose fields most of the first rows have; `format` overrides it. A row of another format is bad.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

from reason_engine.data.formats.containers import container_of, mappings
from reason_engine.data.formats.parse import FORMATS, PROMPT, Format
from reason_engine.data.formats.rows import Labelled, Preference, Row
from reason_engine.data.formats.turns import Bad
from reason_engine.errors import SetupError

R = TypeVar("R", bound=Row)
LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used. `field` is empty where the row as a whole is at fault."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'`{self.field}` ' if self.field else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class Record:
    """What stands at one line: `row`, or the `fault` for which there is none."""

    line: int
    raw: Mapping[str, Any] | None
    row: Row | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Source:
    """A file whose kind and format are known. Iterating reads it anew, as a stream."""

    path: Path
    container: str
    format: Format
    statement: str

    def __iter__(self) -> Iterator[Record]:
        for line, found in mappings(self.path, self.container):
            if isinstance(found, Bad):
                yield Record(line, None, None, Fault(str(self.path), line, found.field, found.message))
            else:
                yield self._record(line, found)

    def _record(self, line: int, raw: Mapping[str, Any]) -> Record:
        try:
            if missing := self.format.missing(raw):
                raise Bad(missing[0], f"is missing (format {self.format.name})")
            return Record(line, raw, self.format.parse(raw), None)
        except Bad as bad:
            return Record(line, raw, None, Fault(str(self.path), line, bad.field, bad.message))


def open_source(path: Path, format: str | None = None) -> Source:
    """The file with its format. Raises SetupError where it cannot be read, is empty or fits no format."""
    forced = format_named(format) if format is not None else None
    container = container_of(path)
    first = list(islice(mappings(path, container), LOOKED_AT))
    rows = [found for _, found in first if not isinstance(found, Bad)]
    if not first:
        raise SetupError(f"{path}: holds no rows")
    if not rows and not forced:
        line, bad = first[0][0], cast(Bad, first[0][1])
        raise SetupError(str(Fault(str(path), line, bad.field, bad.message)))
    known_ones = (*FORMATS, PROMPT)
    fitting = Counter({known.name: sum(not known.missing(raw) for raw in rows) for known in known_ones})
    chosen = forced or max(FORMATS, key=lambda known: fitting[known.name])
    if not forced and not fitting[chosen.name]:
        raise SetupError(_no_format(path, first))
    count = f"{fitting[chosen.name]} of the first {len(first)} rows have its fields"
    told = "as told" if forced else f"found by {', '.join(_found(chosen, rows))}"
    return Source(path, container, chosen, f"{path}: {container}; format {chosen.name}, {told}; {count}")


def read_rows(path: Path, *kinds: type[R], format: str | None = None) -> Iterator[R]:
    """The rows of a file that must be of one of these kinds; where labelled answers are wanted, a preference is two.

    Raises SetupError: at once for a file of another kind, else naming file, line and field of the first bad row.
    """
    source = open_source(path, format)
    split = source.format.kind is Preference and Labelled in kinds and Preference not in kinds
    if source.format.kind not in kinds and not split:
        raise SetupError(f"{path}: format {source.format.name} does not fit; wanted: {_fitting(kinds)}")
    return _strict(source, split)


def format_named(name: str) -> Format:
    """The format of that name. Raises SetupError with the nearest one."""
    known_ones = (*FORMATS, PROMPT)
    found = next((known for known in known_ones if known.name == name), None)
    if found is None:
        names = [known.name for known in known_ones]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(names)}"
        raise SetupError(f"--format: no format named {name!r}; {hint}")
    return found


def _strict(source: Source, split: bool) -> Iterator[Any]:
    for record in source:
        if record.fault is not None:
            raise SetupError(str(record.fault))
        if split:
            row = cast(Preference, record.row)
            yield Labelled(row.prompt, row.chosen, True)
            yield Labelled(row.prompt, row.rejected, False)
        else:
            yield record.row


def _fitting(kinds: Sequence[type[Row]]) -> str:
    return ", ".join(known.name for known in FORMATS if known.kind in kinds)


def _found(format: Format, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields by which the first fitting row was recognised."""
    raw = next(raw for raw in rows if not format.missing(raw))
    return [next(key for key in group if raw.get(key) is not None) for group in format.keys]


def _no_format(path: Path, first: Sequence[tuple[int, Mapping[str, Any] | Bad]]) -> str:
    line, raw = next((line, found) for line, found in first if not isinstance(found, Bad))
    nearest = min(FORMATS, key=lambda known: (len(known.missing(raw)) / len(known.keys), len(known.keys)))
    fields = ", ".join(map(repr, list(raw)[:8])) or "none"
    lacking = ", ".join(nearest.missing(raw))
    if len(nearest.missing(raw)) < len(nearest.keys):
        hint = f"{nearest.name} would also need {lacking}"
    else:
        hint = f"formats: {', '.join(known.name for known in FORMATS)}"
    return f"{path}:{line}: fits no format; its fields are {fields}; {hint}"
