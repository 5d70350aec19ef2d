"""The head of a GGUF file: its metadata, and where each tensor lies. No tensor is read, and torch is not needed.

The format (ggml's docs/gguf.md), little endian: the letters GGUF, the version, the numbers of tensors and of metadata
entries; the entries (key, type, value); for each tensor its name, dimensions (the innermost first), type and offset;
then, from the next multiple of `general.alignment` on, the tensors' bytes.

Departure from the `gguf` package's reader: that one makes several arrays of each string of a vocabulary (seconds for
150,000) and reads past the end of a file that was cut off. Here every length is held against the file's size.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from reason_engine.errors import ModelLoadError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
VERSIONS = (2, 3)
DIMENSIONS = 4


@dataclass(frozen=True, slots=True)
class Strings:
    """An array of strings, which is read when it is wanted: `count` of them from `start` on."""

    start: int
    count: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's place. `shape` has the innermost dimension last; `kind` is ggml's number for how it is stored."""

    name: str
    shape: tuple[int, ...]
    kind: int
    file: Path
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What one file says before its tensors. Long lists of texts stand in the metadata as `Strings`."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    def strings(self, key: str) -> list[str] | None:
        """A list of texts; None where there is none of that name."""
        found = self.metadata.get(key)
        if not isinstance(found, Strings):
            return None
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(self.path, data, found.start)
            return [reader.text() for _ in range(found.count)]


def read_header(path: Path) -> Header:
    """Read and check. Raises ModelLoadError naming the file, and the entry or tensor at fault."""
    try:
        found = path.stat()
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror}") from None
    return _read(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, _changed: int) -> Header:
    """Kept for a few files: the same head is asked for its configuration, tokenizer and tensors in turn."""
    try:
        with path.open("rb") as file:
            _check_start(path, file.read(24))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data, 8).header(size)
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror or error}") from None


def _check_start(path: Path, start: bytes) -> None:
    if start[:4] != b"GGUF":
        raise ModelLoadError(f"{path}: not a GGUF file: it begins with {start[:4]!r} where GGUF is expected")
    if len(start) < 24:
        raise ModelLoadError(f"{path}: truncated: {len(start)} bytes are not even a head")
    (version,) = struct.unpack_from("<I", start, 4)
    if version & 0xFFFF == 0:
        raise ModelLoadError(f"{path}: a GGUF file for big-endian machines, which is not read")
    if version not in VERSIONS:
        raise ModelLoadError(f"{path}: version {version} of GGUF is not read, only {' and '.join(map(str, VERSIONS))}")


class _Reader:
    """Takes one value after the other out of the mapped file; never past its end."""

    def __init__(self, path: Path, data: mmap.mmap, at: int) -> None:
        self.path, self.data, self.at, self.end = path, data, at, len(data)

    def header(self, size: int) -> Header:
        tensors, entries = self.numbers("Q", 2)
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.text("a key")
            if key in metadata:
                raise ModelLoadError(f"{self.path}: {key} stands in its metadata twice")
            metadata[key] = self.value(key, self.numbers("I")[0])
        listed = [self.listing() for _ in range(tensors)]
        step = metadata.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise ModelLoadError(f"{self.path}: general.alignment must be a power of two, not {step!r}")
        base = -(-self.at // step) * step
        return Header(self.path, metadata, self.placed(listed, base, step, size))

    def listing(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text("a tensor's name")
        (count,) = self.numbers("I")
        if count > DIMENSIONS:
            raise ModelLoadError(f"{self.path}: tensor {name} has {count} dimensions, more than {DIMENSIONS}")
        shape = self.numbers("Q", count)[::-1]
        return name, shape, self.numbers("I")[0], self.numbers("Q")[0]

    def placed(
        self, listed: list[tuple[str, tuple[int, ...], int, int]], base: int, step: int, size: int
    ) -> dict[str, TensorInfo]:
        """The tensors, each checked to lie inside the file."""
        from gguf.constants import GGML_QUANT_SIZES

        sizes = {int(kind): pair for kind, pair in GGML_QUANT_SIZES.items()}
        made: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in listed:
            if name in made:
                raise ModelLoadError(f"{self.path}: tensor {name} is listed twice")
            if kind not in sizes:
                raise ModelLoadError(f"{self.path}: tensor {name} is of type {kind}, which is not known here")
            block, width = sizes[kind]
            if not all(shape) or (shape[-1] if shape else 1) % block or offset % step:
                raise ModelLoadError(f"{self.path}: tensor {name}: {shape} at {offset} is no whole number of blocks")
            one = TensorInfo(name, shape, kind, self.path, base + offset, prod(shape) // block * width)
            if one.start + one.size > size:
                end = one.start + one.size
                raise ModelLoadError(f"{self.path}: truncated: tensor {name} ends at byte {end} of {size}")
            made[name] = one
        return made

    def value(self, key: str, kind: int) -> Any:
        if kind == STRING:
            return self.text(key)
        if kind in SCALARS:
            return self.numbers(SCALARS[kind])[0]
        if kind != ARRAY:
            raise ModelLoadError(f"{self.path}: {key} is of type {kind}, which GGUF does not have")
        (inner,), (count,) = self.numbers("I"), self.numbers("Q")
        if inner in SCALARS:
            return list(self.numbers(SCALARS[inner], count))
        if inner != STRING:
            raise ModelLoadError(f"{self.path}: {key} is a list of type {inner}, which is not read")
        start = self.at
        for _ in range(count):
            self.skip()
        return Strings(start, count)

    def numbers(self, letter: str, count: int = 1) -> tuple[Any, ...]:
        width = struct.calcsize(f"<{letter}")
        if count * width > self.end - self.at:
            raise self.cut()
        found = struct.unpack_from(f"<{count}{letter}", self.data, self.at)
        self.at += count * width
        return found

    def text(self, what: str = "a text") -> str:
        start = self.at + 8
        self.skip()
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise ModelLoadError(f"{self.path}: {what} is not UTF-8") from None

    def skip(self) -> None:
        (length,) = self.numbers("Q")
        if length > self.end - self.at:
            raise self.cut()
        self.at += length

    def cut(self) -> ModelLoadError:
        return ModelLoadError(f"{self.path}: truncated: it ends inside its head, at byte {self.end}")
