"""Keys and values of sequences seen before, found again by their tokens: least recently used goes first.

Every block of 8 tokens has a hash chained over all before it; the longest known chain names an entry, whose tokens are
then compared one by one. The chain starts with weights version and adapter, so a change of either finds nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

from torch import Tensor

BLOCK = 8


class PrefixCache:
    """Bounded by bytes. An entry may cover fewer tokens than it was asked to hold, never more."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit, self.used = limit_bytes, 0
        self._entries: OrderedDict[tuple[Hashable, tuple[int, ...]], Tensor] = OrderedDict()
        self._chains: dict[int, tuple[Hashable, tuple[int, ...]]] = {}

    def find(self, space: Hashable, ids: Sequence[int]) -> tuple[Tensor | None, int]:
        """Keys and values that begin with the longest known prefix of `ids`, and how many tokens they share."""
        best: tuple[Hashable, tuple[int, ...]] | None = None
        for chain in _chain(space, ids):
            if (named := self._chains.get(chain)) is None:
                break
            best = named
        if best is None or best not in self._entries or best[0] != space:
            return None, 0
        self._entries.move_to_end(best)
        shared = 0
        for mine, theirs in zip(ids, best[1], strict=False):
            if mine != theirs:
                break
            shared += 1
        return self._entries[best], shared

    def add(self, space: Hashable, ids: Sequence[int], kv: Tensor) -> None:
        """Keep the keys and values of these tokens, unless they are too large or too few."""
        size = kv.numel() * kv.element_size()
        if len(ids) < BLOCK or size > self.limit // 2:
            return
        key = (space, tuple(ids))
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        self._entries[key] = kv
        self.used += size
        for chain in _chain(space, ids):
            self._chains[chain] = key
        while self.used > self.limit:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self._chains.clear()
        self.used = 0

    def _drop(self, key: tuple[Hashable, tuple[int, ...]]) -> None:
        kv = self._entries.pop(key)
        self.used -= kv.numel() * kv.element_size()
        for chain in _chain(*key):
            if self._chains.get(chain) == key:
                del self._chains[chain]


def _chain(space: Hashable, ids: Sequence[int]) -> Iterator[int]:
    value = hash(space)
    for at in range(BLOCK, len(ids) + 1, BLOCK):
        value = hash((value, tuple(ids[at - BLOCK : at])))
        yield value
