"""One reader for every format and file kind: detects both, says what it found, and gives typed rows.

    file = open_source(Path("pairs.jsonl"))
    print(file.statement)            # pairs.jsonl: JSON lines; format preference (prompt, chosen, rejected): …
    for line in file: ...            # a row, or a fault with line, field and reason

    for row in read_rows(Path("pairs.jsonl"), Preference): ...       # strict: the first bad row raises

Files are JSON lines, one JSON list, CSV, TSV (each also gzipped) or Parquet, read as streams. Which it is, the content
decides where it is JSON, the ending elsewhere. A broken line of JSON lines is one bad row; after a broken element of a
JSON list nothing can be read, and the fault says so. The format is that whose fields most of the first rows have;
`format` overrides it. A row of another format is bad.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from reason_engine.data.formats.parse import FORMATS, PROMPT, Format, InvalidField
from reason_engine.data.formats.rows import Conversation, Labelled, Preference, Reference, Row, said_aloud
from reason_engine.errors import MissingExtra, SetupError

R = TypeVar("R", bound=Row)
LOOKED_AT = 50
ALL_FORMATS = (*FORMATS, PROMPT)
Numbered = tuple[int, dict[str, Any] | InvalidField]
"""Line (in Parquet: row), counted from 1, with what stands there."""


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
class RowOrFault:
    """What stands at one line: `row`, or the `fault` for which there is none."""

    line: int
    raw: Mapping[str, Any] | None
    row: Row | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file whose kind and format are known. Iterating reads it anew, as a stream."""

    path: Path
    container: str
    format: Format
    statement: str

    def __iter__(self) -> Iterator[RowOrFault]:
        for line, found in read_mappings(self.path, self.container):
            if isinstance(found, InvalidField):
                yield RowOrFault(line, None, None, Fault(str(self.path), line, found.field, found.message))
            else:
                yield self._parse(line, found)

    def _parse(self, line: int, raw: Mapping[str, Any]) -> RowOrFault:
        try:
            if missing := self.format.missing(raw):
                raise InvalidField(missing[0], f"is missing (format {self.format.name})")
            return RowOrFault(line, raw, self.format.parse(raw), None)
        except InvalidField as bad:
            return RowOrFault(line, raw, None, Fault(str(self.path), line, bad.field, bad.message))


def open_source(path: Path, format: str | None = None) -> RowFile:
    """The file with its format. Raises SetupError where it cannot be read, is empty or fits no format."""
    forced = format_named(format) if format is not None else None
    container = container_of(path)
    first = list(islice(read_mappings(path, container), LOOKED_AT))
    rows = [found for _, found in first if not isinstance(found, InvalidField)]
    if not first:
        raise SetupError(f"{path}: holds no rows")
    if not rows and not forced:
        line, bad = first[0][0], cast(InvalidField, first[0][1])
        raise SetupError(str(Fault(str(path), line, bad.field, bad.message)))
    fitting = Counter({known.name: sum(not known.missing(raw) for raw in rows) for known in ALL_FORMATS})
    chosen = forced or max(FORMATS, key=lambda known: fitting[known.name])
    if not forced and not fitting[chosen.name]:
        raise SetupError(_no_format(path, first))
    count = f"{fitting[chosen.name]} of the first {len(first)} rows have its fields"
    reason = "as told" if forced else f"found by {', '.join(_found(chosen, rows))}"
    return RowFile(path, container, chosen, f"{path}: {container}; format {chosen.name}, {reason}; {count}")


def read_rows(path: Path, *kinds: type[R], format: str | None = None) -> Iterator[R]:
    """The rows of a file that must be of one of these kinds; where labelled answers are wanted, a preference is two,
    and where conversations are, a problem with its answer is one (`said_aloud`).

    Raises SetupError: at once for a file of another kind, else naming file, line and field of the first bad row.
    """
    file = open_source(path, format)
    split = file.format.kind is Preference and Labelled in kinds and Preference not in kinds
    said = file.format.kind is Reference and Conversation in kinds and Reference not in kinds
    if file.format.kind not in kinds and not split and not said:
        fitting = ", ".join(known.name for known in FORMATS if known.kind in kinds)
        raise SetupError(f"{path}: format {file.format.name} does not fit; wanted: {fitting}")
    return map(said_aloud, _strict(file, False)) if said else _strict(file, split)


def format_named(name: str) -> Format:
    """The format of that name. Raises SetupError with the nearest one."""
    names = [known.name for known in ALL_FORMATS]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(names)}"
        raise SetupError(f"--format: no format named {name!r}; {hint}")
    return ALL_FORMATS[names.index(name)]


def _strict(file: RowFile, split: bool) -> Iterator[Any]:
    for found in file:
        if found.fault is not None:
            raise SetupError(str(found.fault))
        if split:
            row = cast(Preference, found.row)
            yield Labelled(row.prompt, row.chosen, True)
            yield Labelled(row.prompt, row.rejected, False)
        else:
            yield found.row


def _found(format: Format, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields by which the first fitting row was recognised."""
    raw = next(raw for raw in rows if not format.missing(raw))
    return [next(key for key in group if raw.get(key) is not None) for group in format.keys]


def _no_format(path: Path, first: Sequence[tuple[int, Mapping[str, Any] | InvalidField]]) -> str:
    line, raw = next((line, found) for line, found in first if not isinstance(found, InvalidField))
    nearest = min(FORMATS, key=lambda known: (len(known.missing(raw)) / len(known.keys), len(known.keys)))
    fields = ", ".join(map(repr, list(raw)[:8])) or "none"
    hint = f"formats: {', '.join(known.name for known in FORMATS)}"
    if len(lacking := nearest.missing(raw)) < len(nearest.keys):
        hint = f"{nearest.name} would also need {', '.join(lacking)}"
    return f"{path}:{line}: fits no format; its fields are {fields}; {hint}"


def container_of(path: Path) -> str:
    """`JSON lines`, `JSON list`, `CSV`, `TSV` or `Parquet`. Raises SetupError for anything else."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    try:
        with _binary(path) as file:
            head = file.read(4096).removeprefix(_BOM).lstrip()
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
    reason = "neither JSON lines, a JSON list, CSV nor Parquet" if head else "holds no rows"
    raise SetupError(f"{path}: {reason}")


def read_mappings(path: Path, container: str) -> Iterator[Numbered]:
    """Every row of the file. Raises SetupError where the file as a whole cannot be read."""
    try:
        if container == "Parquet":
            yield from _parquet(path)
            return
        if container == "JSON lines":
            with _binary(path) as file:
                yield from _json_lines(file)
            return
        with TextIOWrapper(_binary(path), encoding="utf-8-sig", newline="") as text:
            if container == "JSON list":
                yield from _JSONList(text).rows()
            else:
                yield from _table(text, _DELIMITERS[container])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _json_lines(file: IO[bytes]) -> Iterator[Numbered]:
    for number, line in enumerate(file, 1):
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.strip():
            yield number, _decoded(line)


def _decoded(line: bytes) -> dict[str, Any] | InvalidField:
    try:
        text = line.decode("utf-8")
        return _checked(json.loads(text), text)
    except UnicodeDecodeError:
        return InvalidField("", "is not UTF-8")
    except RecursionError:
        return InvalidField("", "is nested too deeply")
    except ValueError as error:
        return InvalidField("", f"is not JSON: {error}")


def _checked(found: Any, source: str) -> dict[str, Any] | InvalidField:
    """An object whose texts can be encoded, decoded from `source`."""
    if not isinstance(found, dict):
        return InvalidField("", "is no object with named fields")
    if _SURROGATE.search(source):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return InvalidField("", "holds half a surrogate pair, which is no text")
    return found


class _JSONList:
    """The elements of one JSON list, decoded one by one from a window over the file."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at, self._line, self._size = file, "", 0, 1, _WINDOW
        self._decoder = json.JSONDecoder()

    def rows(self) -> Iterator[Numbered]:
        self._skip("[")
        if self._peek() == "]":
            return
        while True:
            self._peek()
            line, found = self._line, self._element()
            yield line, found
            sign = self._peek()
            unreadable = isinstance(found, InvalidField) and found.message.startswith("is not JSON")
            if unreadable or sign == "]":
                return
            if sign != ",":
                yield self._line, InvalidField("", "is not JSON: a comma or the end of the list is wanted")
                return
            self._skip(",")

    def _element(self) -> dict[str, Any] | InvalidField:
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                return InvalidField("", "is not JSON: nested too deeply")
            except ValueError as error:
                if self._more():
                    continue
                reason = f"is not JSON: {str(error).partition(':')[0]}; nothing after it was read"
                return InvalidField("", reason)
            source = self._text[self._at : end]
            self._advance(end)
            return _checked(found, source)

    def _peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
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
        self._peek()
        self._advance(self._at + len(sign))

    def _advance(self, end: int) -> None:
        self._line += self._text.count("\n", self._at, end)
        self._at = end

    def _more(self) -> bool:
        chunk = self._file.read(self._size)
        self._text, self._at = self._text[self._at :] + chunk, 0
        self._size = max(_WINDOW, len(self._text))  # doubling: one long element is not read again and again
        return bool(chunk)


def _table(file: IO[str], delimiter: str) -> Iterator[Numbered]:
    """A cell that holds a JSON list or object is read as such; an empty cell is no field."""
    csv.field_size_limit(1 << 27)
    reader = csv.DictReader(file, delimiter=delimiter, restkey="", strict=True)
    for row in reader:
        if "" in row:
            yield reader.line_num, InvalidField("", "has more cells than the header")
            continue
        try:
            yield reader.line_num, {key: _cell(key, value) for key, value in row.items() if value}
        except InvalidField as bad:
            yield reader.line_num, bad


def _cell(key: str, value: str) -> Any:
    if value[:1] not in "[{" or key not in _STRUCTURED:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        if key in _ALSO_TEXT:
            return value
        raise InvalidField(key, "is not JSON") from None


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


_BOM, _WINDOW = b"\xef\xbb\xbf", 1 << 16
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TABLES = {".csv": "CSV", ".tsv": "TSV", ".parquet": "Parquet"}
_DELIMITERS = {"CSV": ",", "TSV": "\t"}
_ALSO_TEXT = frozenset({"prompt", "chosen", "rejected", "completion", "response"})
_STRUCTURED = _ALSO_TEXT | {
    "messages", "conversations", "conversation", "completions", "steps", "labels", "history", "skip", "tools",
}  # fmt: skip
