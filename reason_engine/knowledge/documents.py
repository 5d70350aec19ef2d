"""Walks a folder and reads its documents as passages. What cannot be read is skipped, with its name and the reason.

Markdown, text, PDF; triples as CSV or JSON. Names that begin with a dot are left alone. Links are followed to files
inside the folder only, and only regular files are opened, so that neither a pipe nor a device can hold the reader up.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reason_engine.knowledge.passages import markdown, plain
from reason_engine.knowledge.triples import NoTriples, from_csv, from_json
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
    worker = Path(__file__).with_name("_pdf_worker.py")
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


_TEXTS: dict[str, Callable[[str, str], Iterator[Passage]]] = {
    ".md": markdown, ".markdown": markdown, ".txt": plain, ".text": plain,
}  # fmt: skip
_TRIPLES: dict[str, Callable[[str, str], tuple[list[Passage], int]]] = {".csv": from_csv, ".json": from_json}
