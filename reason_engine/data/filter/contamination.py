"""Test-set contamination: rows that share a run of n words with a test set.

Brown et al. 2020 (arXiv:2005.14165), appendix C: 13 words, lower case, no punctuation; one shared run is enough. A
test text shorter than n words but not than `SHORT` is compared whole, as a run of its own length; a shorter one
only with a row's whole prompt. Departure: runs that are frequent in the training data are not excused, since a
dropped row costs little and is listed with its evidence.

A test file may have any columns: every text in every row of it counts. It is kept as 8-byte hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.data.formats.containers import container_of, mappings
from reason_engine.data.formats.turns import Bad
from reason_engine.data.texts import digest, grams, words
from reason_engine.errors import SetupError

SHORT, SHORTEST = 8, 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a row shares with a test set, and where that stands."""

    file: str
    line: int
    shared: str


class TestSets:
    """Runs of words of the files that training must not see."""

    __test__ = False  # for test runners: this is no test

    def __init__(self, paths: Sequence[Path], n: int = 13) -> None:
        """Raises SetupError where a file cannot be read or holds no text."""
        self._n, self._files = n, [str(path) for path in paths]
        self._runs: dict[int, dict[int, tuple[int, int]]] = {n: {}}
        self._whole: dict[int, tuple[int, int]] = {}
        self.texts = self.too_short = 0
        for number, path in enumerate(paths):
            before = self.texts
            for line, raw in mappings(path, container_of(path)):
                if isinstance(raw, Bad):
                    raise SetupError(f"--against {path}:{line}: {raw}")
                for text in _texts(raw):
                    self._take(words(text), (number, line))
            if self.texts == before:
                raise SetupError(f"--against {path}: holds no text that can be compared")

    def overlap(self, prompt: str, answer: str) -> Overlap | None:
        """The first run that prompt or answer share with a test set."""
        asked, said = words(prompt), words(answer)
        if (place := self._whole.get(digest(" ".join(asked)))) is not None:
            return Overlap(self._files[place[0]], place[1], " ".join(asked))
        for length, runs in self._runs.items():
            for gram in (*grams(asked, length), *grams(said, length)):
                if (place := runs.get(digest(gram))) is not None:
                    return Overlap(self._files[place[0]], place[1], gram)
        return None

    def _take(self, found: Sequence[str], place: tuple[int, int]) -> None:
        if len(found) < SHORTEST:
            self.too_short += bool(found)
            return
        self.texts += 1
        if len(found) < min(SHORT, self._n):
            self._whole.setdefault(digest(" ".join(found)), place)
            return
        length = min(self._n, len(found))
        runs = self._runs.setdefault(length, {})
        for gram in grams(found, length):
            runs.setdefault(digest(gram), place)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
