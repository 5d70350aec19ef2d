"""Walks a folder and reads its documents as passages. What cannot be read is skipped, with its name and the reason.

Markdown, text, PDF; triples as CSV or JSON. Names that begin with a dot are left alone. Links are followed to files
inside the folder only, and only regular files are opened, so that neither a pipe nor a device can hold the reader up.

Facts as triples (subject, relation, object), from CSV or JSON, told as sentences: `Paris capital of France.`

CSV has three columns, with or without the header `subject,relation,object` (then in any order, other columns ignored).
JSON is a list, or `{"triples": [...]}`, of objects with these keys or of lists of three. What one file says of a
subject stands together.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reason_engine.knowledge.passages import markdown, pieces, plain
from reason_engine.types import Passage

MOST_BYTES = 16 << 20
PDF_SECONDS = 30.0


class Skipped(Exception):
    """A file that is not read; the message says why."""


@dataclass(frozen=True, slots=True)
class Read:
    """What came of one file: its passages, and what is to be said about it (empty: nothing)."""

    name: str
    passages: tuple[Passage, ...] = ()
    warning: str = ""


def read_folder(root: Path) -> Iterator[Read]:
    """Every file below the folder, by name, whatever is wrong with some of them."""
    real, seen = root.resolve(), set[Path]()
    for path, problem in _walk(root):
        name = _shown(path.relative_to(root))
        if problem:
            yield Read(name, warning=problem)
            continue
        try:
            if not (target := path.resolve()).is_relative_to(real):
                raise Skipped("a link out of the folder")
            if target in seen:
                continue
            seen.add(target)
            yield _read(target, path.suffix.lower(), name)
        except (Skipped, NoTriples) as why:
            yield Read(name, warning=str(why))
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            yield Read(name, warning=getattr(error, "strerror", None) or str(error))


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    """(file, what is wrong with it) in order; folders that cannot be listed come with their fault."""
    faults: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=faults.append):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (name for name in folders if (here / name).is_symlink()):
            yield here / name, "a link to a folder"
        yield from ((here / name, "") for name in sorted(files) if not name.startswith("."))
    for fault in faults:
        yield Path(os.fsdecode(fault.filename)), fault.strerror or "cannot be listed"


def _read(path: Path, suffix: str, name: str) -> Read:
    if suffix == ".pdf":
        pages = _pdf(_bytes(path))
        found = [p for number, page in enumerate(pages, 1) for p in plain(page, f"{name} page {number}")]
        if not found:
            raise Skipped("holds no text; a scan needs to be read by other means first")
        return Read(name, tuple(found))
    if suffix in _TEXTS:
        return Read(name, tuple(_TEXTS[suffix](_text(path), name)))
    if suffix in _TRIPLES:
        found, left = _TRIPLES[suffix](_text(path), name)
        return Read(
            name, tuple(found), f"{left} entries without subject, relation and object" if left else ""
        )
    kinds = " ".join((*_TEXTS, ".pdf", *_TRIPLES))
    raise Skipped(f"not of a kind that is read: {kinds}")


def _bytes(path: Path) -> bytes:
    """The whole of a regular file that is not too large."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise Skipped("not a regular file")
        if about.st_size <= MOST_BYTES and len(data := file.read(MOST_BYTES + 1)) <= MOST_BYTES:
            return data
    raise Skipped(f"larger than {MOST_BYTES >> 20} MiB")


def _text(path: Path) -> str:
    data = _bytes(path)
    if b"\0" in data:
        raise Skipped("binary, not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Skipped(f"not UTF-8 (byte {error.start})") from None


def _pdf(data: bytes) -> list[str]:
    worker = Path(__file__).with_name("pdf_worker.py")
    try:
        ran = subprocess.run(
            [sys.executable, "-P", str(worker)], input=data, capture_output=True, timeout=PDF_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"not read within {PDF_SECONDS:g} s") from None
    if ran.returncode:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Skipped(f"not a PDF that can be read ({said[-1][:200] if said else 'its reader was ended'})")
    return json.loads(ran.stdout)


def _shown(path: Path) -> str:
    """A name that can be printed and sent, whatever bytes the file system holds."""
    text = path.as_posix().encode("utf-8", "replace").decode()
    return "".join(sign if sign.isprintable() else "?" for sign in text)


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
        cells = [_cell_text(cell) for cell in row]
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


def _cell_text(cell: object) -> str:
    """`capital_of` reads as words; numbers as they are; anything nested is no part of a triple."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return ""
    return " ".join(str(cell).replace("_", " ").split()).rstrip(".")


_TEXTS: dict[str, Callable[[str, str], Iterator[Passage]]] = {
    ".md": markdown, ".markdown": markdown, ".txt": plain, ".text": plain,
}  # fmt: skip
_TRIPLES: dict[str, Callable[[str, str], tuple[list[Passage], int]]] = {".csv": from_csv, ".json": from_json}
