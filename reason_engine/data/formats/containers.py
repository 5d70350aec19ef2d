"""Files as numbered mappings: JSON lines, one JSON list, CSV, TSV, Parquet; each of the text kinds also gzipped.

What a file is, its content decides where it is JSON, its ending elsewhere. All are read as streams. A broken line of
JSON lines is one bad row; after a broken element of a JSON list nothing can be read, and that is said.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from reason_engine.data.formats.turns import Bad
from reason_engine.errors import MissingExtra, SetupError

Numbered = tuple[int, dict[str, Any] | Bad]
"""Line (in Parquet: row), counted from 1, with what stands there."""


def container_of(path: Path) -> str:
    """`JSON lines`, `JSON list`, `CSV`, `TSV` or `Parquet`. Raises SetupError for anything else."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    try:
        with _binary(path) as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, EOFError) as error:
        raise SetupError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if head[:4] == b"PAR1":
        return "Parquet"
    if suffix in _TABLES:
        return _TABLES[suffix]
    if head[:1] == b"[":
        return "JSON list"
    if head[:1] == b"{" or suffix in (".jsonl", ".ndjson"):
        return "JSON lines"
    raise SetupError(
        f"{path}: holds no rows" if not head else f"{path}: neither JSON lines, a JSON list, CSV nor Parquet"
    )


def mappings(path: Path, container: str) -> Iterator[Numbered]:
    """Every row of the file. Raises SetupError where the file as a whole cannot be read."""
    try:
        if container == "Parquet":
            yield from _parquet(path)
            return
        if container == "JSON lines":
            with _binary(path) as file:
                yield from _lines(file)
            return
        with TextIOWrapper(_binary(path), encoding="utf-8-sig", newline="") as text:
            if container == "JSON list":
                yield from _List(text).rows()
            else:
                yield from _table(text, _DELIMITERS[container])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(file: IO[bytes]) -> Iterator[Numbered]:
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, _object(line)


def _object(line: bytes) -> dict[str, Any] | Bad:
    try:
        text = line.decode("utf-8")
        found = json.loads(text)
    except UnicodeDecodeError:
        return Bad("", "is not UTF-8")
    except RecursionError:
        return Bad("", "is nested too deeply")
    except ValueError as error:
        return Bad("", f"is not JSON: {error}")
    return _mapping(found, text)


def _mapping(found: Any, written: str) -> dict[str, Any] | Bad:
    if not isinstance(found, dict):
        return Bad("", "is no object with named fields")
    if _SURROGATE.search(written):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Bad("", "holds half a surrogate pair, which is no text")
    return found


class _List:
    """The elements of one JSON list, decoded one by one from a window over the file."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at, self._line, self._size = file, "", 0, 1, 1 << 16
        self._decoder = json.JSONDecoder()

    def rows(self) -> Iterator[Numbered]:
        self._skip("[")
        if self._peek() == "]":
            return
        while True:
            self._skip("")
            line, found = self._line, self._element()
            yield line, found
            sign = self._peek()
            if isinstance(found, Bad) and not found.field and found.message.startswith("is not JSON"):
                return
            if sign == "]":
                return
            if sign != ",":
                yield self._line, Bad("", "is not JSON: a comma or the end of the list is wanted")
                return
            self._skip(",")

    def _element(self) -> dict[str, Any] | Bad:
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                return Bad("", "is not JSON: nested too deeply")
            except ValueError as error:
                if self._more():
                    continue
                return Bad("", f"is not JSON: {str(error).partition(':')[0]}; nothing after it was read")
            written = self._text[self._at : end]
            self._advance(end)
            return _mapping(found, written)

    def _peek(self) -> str:
        """The next sign that is no space; empty at the end of the file."""
        while True:
            place = self._at
            while place < len(self._text) and self._text[place].isspace():
                place += 1
            self._advance(place)
            if place < len(self._text):
                return self._text[place]
            if not self._more():
                return ""

    def _skip(self, sign: str) -> None:
        """Past `sign` and the space before the next one."""
        self._peek()
        self._advance(self._at + len(sign))
        self._peek()

    def _advance(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        chunk = self._file.read(self._size)
        self._text, self._at = self._text[self._at :] + chunk, 0
        self._size = max(
            1 << 16, len(self._text)
        )  # doubling, so that one long element is not read again and again
        return bool(chunk)


def _table(file: IO[str], delimiter: str) -> Iterator[Numbered]:
    """A cell that holds a JSON list or object is read as such; an empty cell is no field."""
    csv.field_size_limit(1 << 27)
    reader = csv.DictReader(file, delimiter=delimiter, restkey="", strict=True)
    for row in reader:
        if "" in row:
            yield reader.line_num, Bad("", "has more cells than the header")
            continue
        try:
            yield reader.line_num, {key: _cell(key, value) for key, value in row.items() if value}
        except Bad as bad:
            yield reader.line_num, bad


def _cell(key: str, value: str) -> Any:
    if value[:1] not in "[{" or key not in _STRUCTURED:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if key in _ALSO_TEXT:
            return value
        raise Bad(key, "is not JSON") from None


def _parquet(path: Path) -> Iterator[Numbered]:
    try:
        from pyarrow import ArrowException  # pyright: ignore[reportMissingImports]
        from pyarrow.parquet import ParquetFile  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtra("pyarrow (for Parquet files)", 'pip install "reason-engine[train]"') from None
    try:
        number = 0
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
    except ArrowException as error:
        raise SetupError(f"{path}: not a Parquet file: {error}") from None


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TABLES = {".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
_DELIMITERS = {"CSV": ",", "TSV": "\t"}
_ALSO_TEXT = frozenset({"prompt", "chosen", "rejected", "completion", "response"})
_STRUCTURED = _ALSO_TEXT | {
    "messages", "conversations", "conversation", "completions", "steps", "labels", "history", "skip", "tools",
}  # fmt: skip
