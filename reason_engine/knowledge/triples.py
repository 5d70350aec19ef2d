"""Facts as triples (subject, relation, object), from CSV or JSON, told as sentences: `Paris capital of France.`

CSV has three columns, with or without the header `subject,relation,object` (then in any order, other columns ignored).
JSON is a list, or `{"triples": [...]}`, of objects with these keys or of lists of three. What one file says of a
subject stands together.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from reason_engine.knowledge.passages import pieces
from reason_engine.types import Passage

NAMES = ("subject", "relation", "object")


class NoTriples(ValueError):
    """The file holds something else; the message says what is missing."""


def from_csv(text: str, name: str) -> tuple[list[Passage], int]:
    """(passages, rows that were left out). Raises NoTriples."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise NoTriples(f"is no CSV: {error}") from None
    columns = [0, 1, 2]
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if set(NAMES) <= set(head):
        columns, rows = [head.index(key) for key in NAMES], rows[1:]
    wide = max(columns) + 1
    exact = head == [] or not set(NAMES) <= set(head)
    fits = [row for row in rows if (len(row) == 3 if exact else len(row) >= wide)]
    return _told(([row[at] for at in columns] for row in fits), name, len(rows))


def from_json(text: str, name: str) -> tuple[list[Passage], int]:
    """(passages, entries that were left out). Raises NoTriples."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise NoTriples("is no JSON") from None
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data).get("triples")
    if not isinstance(data, list):
        raise NoTriples("holds no list of triples")
    rows = cast("list[object]", data)
    return _told((_cells(row) for row in rows), name, len(rows))


def _cells(row: object) -> list[Any]:
    if isinstance(row, dict):
        given = cast("Mapping[str, Any]", row)
        return [given.get(key) for key in NAMES]
    return cast("list[Any]", row) if isinstance(row, list) else []


def _told(rows: Iterable[list[Any]], name: str, count: int) -> tuple[list[Passage], int]:
    said: dict[str, list[str]] = {}
    good = 0
    for row in rows:
        cells = [_text(cell) for cell in row]
        if len(cells) == 3 and all(cells):
            good += 1
            said.setdefault(cells[0], []).append(" ".join(cells) + ".")
    if not good:
        raise NoTriples("holds no subject, relation and object")
    return list(_grouped(said, name)), count - good


def _grouped(said: Mapping[str, list[str]], name: str) -> Iterator[Passage]:
    for subject, sentences in said.items():
        for piece in pieces(" ".join(sentences)):
            yield Passage(piece, f"{name}:{subject[:80]}")


def _text(cell: object) -> str:
    """`capital_of` reads as words; numbers as they are; anything nested is no part of a triple."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return ""
    return " ".join(str(cell).replace("_", " ").split()).rstrip(".")
