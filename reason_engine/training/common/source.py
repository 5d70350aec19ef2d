"""Where a trainer's examples come from: a mixture's stream or a shuffled file, both able to go on where they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Row
from reason_engine.data.mixture import Stream, digest


class Source(Protocol):
    """Rows without end, with a state of plain values."""

    def __next__(self) -> Any: ...
    def state(self) -> list[Any]: ...
    def restore(self, state: Sequence[Any]) -> None: ...


class FileSource:
    """A file's rows of some kinds, shuffled anew each epoch by the seed. Raises SetupError naming the first bad row."""

    def __init__(self, path: Path, kinds: Sequence[type[Row]], seed: int, format: str | None = None) -> None:
        self._rows: list[Any] = list(read_rows(path, *kinds, format=format))
        self._seed, self._epoch, self._place = seed, 0, 0
        self._order = self._shuffled()

    @property
    def rows(self) -> list[Any]:
        """All of them, in the file's order."""
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._place == len(self._rows):
            self._epoch, self._place = self._epoch + 1, 0
            self._order = self._shuffled()
        self._place += 1
        return self._rows[self._order[self._place - 1]]

    def state(self) -> list[Any]:
        return [self._epoch, self._place]

    def restore(self, state: Sequence[Any]) -> None:
        self._epoch, self._place = state
        self._order = self._shuffled()

    def _shuffled(self) -> list[int]:
        order = list(range(len(self._rows)))
        random.Random(f"train-{self._seed}-{self._epoch}").shuffle(order)
        return order


def source_of(config: Any, kinds: Sequence[type[Row]]) -> Source:
    """The source that a config names."""
    if "mixture" in type(config).model_fields and config.mixture:
        return Stream(config.mixture, config.seed)
    return FileSource(config.data, kinds, config.seed, config.format)


def data_hash(config: BaseModel) -> str | None:
    """A hash of the file, or of the mixture's first examples; None of a config that names neither."""
    named = {name: value for name, value in config if name in ("mixture", "data", "seed")}
    if named.get("mixture"):
        return digest(named["mixture"], named["seed"])
    if isinstance(named.get("data"), Path):
        return hashlib.sha256(named["data"].read_bytes()).hexdigest()[:16]
    return None
