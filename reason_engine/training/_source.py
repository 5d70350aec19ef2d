"""Where a trainer's examples come from: a mixture's stream or a shuffled file, both able to go on where they were."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from reason_engine.data import Example
from reason_engine.data.formats import read
from reason_engine.data.mixture import Stream, digest
from reason_engine.errors import SetupError


class Source(Protocol):
    """Examples without end, with a state of plain values."""

    def __next__(self) -> Example: ...
    def state(self) -> list[Any]: ...
    def restore(self, state: Sequence[Any]) -> None: ...


class FileSource:
    """A file's examples, shuffled anew each epoch by the seed."""

    def __init__(self, path: Path, seed: int) -> None:
        self._rows = list(read(path))
        if not self._rows:
            raise SetupError(f"{path}: holds no examples")
        self._seed, self._epoch, self._place = seed, 0, 0
        self._order = self._shuffled()

    def __iter__(self) -> Iterator[Example]:
        return self

    def __next__(self) -> Example:
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


def source_of(config: Any) -> Source:
    """The source that a config names."""
    return Stream(config.mixture, config.seed) if config.mixture else FileSource(config.data, config.seed)


def data_hash(config: Any) -> str:
    """A hash of the file, or of the mixture's first examples."""
    if config.mixture:
        return digest(config.mixture, config.seed)
    return hashlib.sha256(config.data.read_bytes()).hexdigest()[:16]
