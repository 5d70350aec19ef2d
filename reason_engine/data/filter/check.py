"""`reason data check`: what a file is, which rows cannot be used and why, how long the rows are, which are doubles."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.data.formats.readers import Fault, open_source
from reason_engine.data.formats.rows import Row, answer_text, prompt_text
from reason_engine.data.texts import digest, squeeze
from reason_engine.engines.open import bundled_model
from reason_engine.errors import SetupError

SHOWN = 20
NO_TOKENIZER = "none"


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


def check(
    paths: Sequence[Path], *, format: str | None = None, tokenizer: str | None = None, shown: int = SHOWN
) -> list[Checked]:
    """Check files, one after another. Raises SetupError where a file as a whole cannot be read."""
    count, seen = token_counter(tokenizer), set[int]()
    return [_one(path, format, count, seen, shown) for path in paths]


def describe(found: Checked) -> str:
    """The report of one file as text."""
    lengths = {"characters": found.characters, "tokens": found.tokens}
    lines = [
        found.statement,
        f"  rows {found.rows}, bad {found.bad}, duplicates {found.duplicates}",
        *(_line(name, counts) for name, counts in lengths.items() if counts),
        *(f"  {fault}" for fault in found.faults),
    ]
    if found.bad > len(found.faults):
        lines.append(f"  and {found.bad - len(found.faults)} more bad rows")
    return "\n".join(lines)


def whole_text(row: Row) -> str:
    """The text of a row by which it is measured and compared."""
    return "\n".join(part for part in (prompt_text(row), answer_text(row)) if part)


def _one(path: Path, format: str | None, count: Callable[[str], int] | None, seen: set[int], shown: int) -> Checked:
    file = open_source(path, format)
    rows = bad = duplicates = 0
    faults: list[Fault] = []
    fields, characters, tokens = Counter[str](), array("I"), array("I")
    for found in file:
        rows += 1
        if found.row is None:
            assert found.fault is not None
            bad += 1
            fields[found.fault.field.partition("[")[0] or "(row)"] += 1
            faults += [found.fault] if len(faults) < shown else []
            continue
        text = whole_text(found.row)
        characters.append(len(text))
        if count is not None:
            tokens.append(count(text))
        mark = digest(f"{type(found.row).__name__} {squeeze(text)}")
        duplicates += mark in seen
        seen.add(mark)
    return Checked(
        str(path), file.statement, file.container, file.format.name, rows, bad, tuple(faults), dict(fields),
        duplicates, _summary(characters), _summary(tokens),
    )  # fmt: skip


def token_counter(name: str | None) -> Callable[[str], int] | None:
    """Counts tokens by a checkpoint folder's `tokenizer.json`, by such a file, or by the bundled model's; `none`: not
    at all. Marks of a chat template are not counted. Raises SetupError naming what is wrong."""
    if name == NO_TOKENIZER:
        return None
    path = bundled_model() if name is None else Path(name)
    if path is None:
        raise SetupError("--tokenizer: the bundled model is not in this installation; name one, or none")
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise SetupError(f"--tokenizer {name}: {path} is no file")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # a boundary: the library raises Exception itself on a file that is none
        raise SetupError(f"--tokenizer {name}: not a tokenizer: {error}") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _line(name: str, summary: dict[str, Any]) -> str:
    return f"  {name:<10} {'  '.join(f'{key} {value}' for key, value in summary.items())}"


def _summary(lengths: array[int]) -> dict[str, Any]:
    """Least, quartiles, 95th percentile, most, mean and sum; empty where nothing was seen."""
    ranked = sorted(lengths)
    if not ranked:
        return {}
    marks = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    found: dict[str, Any] = {name: ranked[round(at * (len(ranked) - 1))] for name, at in marks.items()}
    return {**found, "mean": round(sum(ranked) / len(ranked), 1), "sum": sum(ranked)}
