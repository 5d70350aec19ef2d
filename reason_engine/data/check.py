"""`reason data check`: what a file is, which rows cannot be used and why, how long the rows are, which are doubles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.data._lengths import Lengths, token_counter
from reason_engine.data._texts import digest, squeeze
from reason_engine.data.readers import Fault, open_source
from reason_engine.data.rows import Row, answer_text, prompt_text

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Checked:
    """One file. `faults` are the first bad rows, `bad` counts all; `duplicates` counts rows whose text came before, in
    this file or in one checked before it."""

    file: str
    statement: str
    container: str
    format: str
    rows: int
    bad: int
    faults: tuple[Fault, ...]
    fields_at_fault: dict[str, int]
    duplicates: int
    characters: dict[str, Any]
    tokens: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check(
    paths: Sequence[Path], *, format: str | None = None, tokenizer: str | None = None, shown: int = SHOWN
) -> list[Checked]:
    """Check files, one after another. Raises SetupError where a file as a whole cannot be read."""
    count, seen = token_counter(tokenizer), set[int]()
    return [_one(path, format, count, seen, shown) for path in paths]


def describe(found: Checked) -> str:
    """The report of one file as text."""
    lines = [
        found.statement,
        f"  rows {found.rows}, bad {found.bad}, duplicates {found.duplicates}",
        *(
            f"  {name:<10} {'  '.join(f'{key} {value}' for key, value in summary.items())}"
            for name, summary in (("characters", found.characters), ("tokens", found.tokens))
            if summary
        ),
        *(f"  {fault}" for fault in found.faults),
    ]
    if found.bad > len(found.faults):
        lines.append(f"  and {found.bad - len(found.faults)} more bad rows")
    return "\n".join(lines)


def whole_text(row: Row) -> str:
    """The text of a row by which it is measured and compared."""
    return "\n".join(part for part in (prompt_text(row), answer_text(row)) if part)


def _one(
    path: Path, format: str | None, count: Callable[[str], int] | None, seen: set[int], shown: int
) -> Checked:
    source = open_source(path, format)
    rows = bad = duplicates = 0
    faults: list[Fault] = []
    fields, characters, tokens = Counter[str](), Lengths(), Lengths()
    for record in source:
        rows += 1
        if record.row is None:
            assert record.fault is not None
            bad += 1
            fields[record.fault.field.partition("[")[0] or "(row)"] += 1
            faults += [record.fault] if len(faults) < shown else []
            continue
        text = whole_text(record.row)
        characters.add(len(text))
        if count is not None:
            tokens.add(count(text))
        mark = digest(f"{type(record.row).__name__} {squeeze(text)}")
        duplicates += mark in seen
        seen.add(mark)
    return Checked(
        str(path), source.statement, source.container, source.format.name, rows, bad, tuple(faults), dict(fields),
        duplicates, characters.summary(), tokens.summary(),
    )  # fmt: skip
