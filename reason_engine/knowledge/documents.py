"""Reads a folder of documents as passages. What cannot be read is skipped, with its name and the reason.

Markdown, text, PDF; triples as CSV or JSON. Names that begin with a dot are left alone. Links are followed to files
inside the folder only, and only regular files are opened, so that neither a pipe nor a device can hold the reader up.

Texts are cut at headings and paragraphs, long paragraphs at sentences. A passage has at most LONGEST characters.
Paragraphs shorter than SHORT are joined with the next one under the same heading. Of a long paragraph, a piece begins
with the last sentences of the piece before, up to OVERLAP characters.

Triples (subject, relation, object) become sentences: `Paris capital of France.` CSV has three columns, with or without
the header `subject,relation,object` (then in any order, other columns ignored). JSON is a list, or
`{"triples": [...]}`, of objects with these keys or of lists of three. What one file says of a subject stands together.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reason_engine.types import Passage

MOST_BYTES = 16 << 20
PDF_SECONDS = 30.0
LONGEST, OVERLAP, SHORT = 600, 100, 80
COLUMNS = ("subject", "relation", "object")


class Skipped(Exception):
    """A file that is not read; the message says why."""


@dataclass(frozen=True, slots=True)
class Read:
    """What came of one file: its passages, and a warning (empty: none)."""

    name: str
    passages: tuple[Passage, ...] = ()
    warning: str = ""


def read_folder(root: Path) -> Iterator[Read]:
    """Every file below the folder, by name, whatever is wrong with some of them."""
    real, seen = root.resolve(), set[Path]()
    for path, problem in _files(root):
        name = _printable(path.relative_to(root))
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
        except Skipped as why:
            yield Read(name, warning=str(why))
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            yield Read(name, warning=getattr(error, "strerror", None) or str(error))


def plain(text: str, name: str) -> Iterator[Passage]:
    """Passages of a text without markup; the source is `name:line`."""
    yield from _passages([("", line, block) for line, block in _paragraphs(text.splitlines(), 1)], name)


def markdown(text: str, name: str) -> Iterator[Passage]:
    """The same, each with the heading it stands under. A `#` inside a fence is no heading."""
    blocks: list[tuple[str, int, str]] = []
    heading, fence, start, rows = "", "", 1, list[str]()

    def close() -> None:
        blocks.extend((heading, line, block) for line, block in _paragraphs(rows, start))

    for number, row in enumerate(text.splitlines(), 1):
        if mark := _FENCE.match(row):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        if not fence and (found := _HEADING.match(row)):
            close()
            heading, start, rows = found[1].strip(), number + 1, []
        else:
            rows.append(row)
    close()
    yield from _passages(blocks, name)


def pieces(text: str) -> list[str]:
    """A text of any length as pieces of at most LONGEST characters."""
    if len(text) <= LONGEST:
        return [text]
    found: list[str] = []
    held: list[str] = []
    for part in _parts(text):
        if held and len(" ".join((*held, part))) > LONGEST:
            found.append(" ".join(held))
            while held and (len(" ".join(held)) > OVERLAP or len(" ".join((*held, part))) > LONGEST):
                held = held[1:]
        held.append(part)
    return [*found, " ".join(held)]


def _files(root: Path) -> Iterator[tuple[Path, str]]:
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
        found, left = _sentences(_TRIPLES[suffix](_text(path)), name)
        warning = f"{left} entries without subject, relation and object" if left else ""
        return Read(name, tuple(found), warning)
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
    command = [sys.executable, "-P", str(Path(__file__).with_name("pdf_worker.py"))]
    try:
        ran = subprocess.run(command, input=data, capture_output=True, timeout=PDF_SECONDS)
    except subprocess.TimeoutExpired:
        raise Skipped(f"not read within {PDF_SECONDS:g} s") from None
    if ran.returncode:
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Skipped(f"not a PDF that can be read ({lines[-1][:200] if lines else 'its reader was ended'})")
    return json.loads(ran.stdout)


def _printable(path: Path) -> str:
    """A name that can be printed and sent, whatever bytes the file system holds."""
    text = path.as_posix().encode("utf-8", "replace").decode()
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _passages(blocks: list[tuple[str, int, str]], name: str) -> Iterator[Passage]:
    joined: list[tuple[str, int, str]] = []
    for heading, line, block in blocks:
        if joined and joined[-1][0] == heading and len(joined[-1][2]) < SHORT:
            joined[-1] = (heading, joined[-1][1], f"{joined[-1][2]} {block}")
        else:
            joined.append((heading, line, block))
    for heading, line, block in joined:
        for piece in pieces(block):
            head = "" if not heading or heading.casefold() in piece.casefold() else f"{heading[:OVERLAP]}: "
            yield Passage(head + piece, f"{name}:{line}")


def _paragraphs(rows: list[str], first: int) -> Iterator[tuple[int, str]]:
    """(line, text) of what stands between blank lines, its white space collapsed."""
    held: list[str] = []
    for number, row in enumerate([*rows, ""], first):
        if words := " ".join(row.split()):
            held.append(words)
        elif held:
            yield number - len(held), " ".join(held)
            held = []


def _parts(text: str) -> Iterator[str]:
    """Sentences; where one is too long, groups of its words; where a word is, its letters."""
    for sentence in _SENTENCE.split(text):
        held = ""
        for word in sentence.split():
            for at in range(0, len(word), LONGEST):
                part = word[at : at + LONGEST]
                if held and len(held) + 1 + len(part) > LONGEST:
                    yield held
                    held = ""
                held = f"{held} {part}" if held else part
        if held:
            yield held


def _csv_rows(text: str) -> list[list[Any]]:
    """Rows of three cells, others empty. Raises Skipped."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise Skipped(f"is no CSV: {error}") from None
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if not set(COLUMNS) <= set(head):
        return rows
    places = [head.index(key) for key in COLUMNS]
    return [[row[at] for at in places] if len(row) > max(places) else [] for row in rows[1:]]


def _json_rows(text: str) -> list[list[Any]]:
    """Rows of cells, those that are no triple empty. Raises Skipped."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise Skipped("is no JSON") from None
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data).get("triples")
    if not isinstance(data, list):
        raise Skipped("holds no list of triples")
    return [_json_cells(row) for row in cast("list[object]", data)]


def _json_cells(row: object) -> list[Any]:
    if isinstance(row, dict):
        return [cast("Mapping[str, Any]", row).get(key) for key in COLUMNS]
    return cast("list[Any]", row) if isinstance(row, list) else []


def _sentences(rows: Iterable[list[Any]], name: str) -> tuple[list[Passage], int]:
    """(passages, rows that were left out). Raises Skipped where all were."""
    of_subject, left_out = dict[str, list[str]](), 0
    for row in rows:
        cells = [_cell_text(cell) for cell in row]
        if len(cells) == 3 and all(cells):
            of_subject.setdefault(cells[0], []).append(" ".join(cells) + ".")
        else:
            left_out += 1
    if not of_subject:
        raise Skipped("holds no subject, relation and object")
    passages = [
        Passage(piece, f"{name}:{subject[:80]}")
        for subject, sentences in of_subject.items()
        for piece in pieces(" ".join(sentences))
    ]
    return passages, left_out


def _cell_text(cell: object) -> str:
    """`capital_of` reads as words; numbers as they are; anything nested is no part of a triple."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        return ""
    return " ".join(str(cell).replace("_", " ").split()).rstrip(".")


_TEXTS: dict[str, Callable[[str, str], Iterator[Passage]]] = {
    ".md": markdown, ".markdown": markdown, ".txt": plain, ".text": plain,
}  # fmt: skip
_TRIPLES: dict[str, Callable[[str], list[list[Any]]]] = {".csv": _csv_rows, ".json": _json_rows}
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
