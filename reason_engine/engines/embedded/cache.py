"""Keys and values of the running rows: one preallocated block, right-padded, rows packed without holes.

A store is (layers, rows, cells, 2 K, D): keys first, then values. It grows by doubling, and only when asked.

Keys and values of sequences seen before, found again by their tokens: least recently used goes first.

Every block of 8 tokens has a hash chained over all before it; the longest known chain names an entry, whose tokens are
then compared one by one. The chain starts with weights version and adapter, so a change of either finds nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.model.shape import Shape

STEP = 16
"""Cells attended over are rounded up to this, so that views of the store last for many steps."""


class KeyValues:
    """The store, and attention of one new token a row over it."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.cell_bytes = shape.layers * 2 * shape.kv_heads * shape.head_dim * dtype.itemsize
        self.rows = self.cells = 0
        self.data = self._new(0, 0)
        self._flat: list[Tensor] = []
        self._views: list[tuple[Tensor, Tensor]] = []
        self._viewed = (-1, -1)
        self._mask = torch.empty(0, 0, dtype=dtype, device=device)
        self._mask_view = self._mask
        self.cells_B = torch.empty(0, dtype=torch.long, device=device)

    def bytes_for(self, rows: int, cells: int) -> int:
        """The size of a store with at least so many rows and cells."""
        return _grown(rows, 1) * _grown(cells, 128) * self.cell_bytes

    def ensure(self, rows: int, cells: int) -> None:
        """Grow to at least that many rows and cells; content is kept."""
        if rows <= self.rows and cells <= self.cells:
            return
        old, kept_rows, kept_cells = self.data, self.rows, self.cells
        self.rows = max(self.rows, _grown(rows, 1))
        self.cells = max(self.cells, _grown(cells, 128))
        self.data = self._new(self.rows, self.cells)
        self.data[:, :kept_rows, :kept_cells] = old
        self._flat = [layer.flatten(0, 1) for layer in self.data]
        mask = torch.full((self.rows, self.cells), float("-inf"), dtype=self.dtype, device=self.device)
        mask[:kept_rows, :kept_cells] = self._mask
        self._mask = mask
        first_B = torch.arange(self.cells_B.shape[0], device=self.device)
        self.cells_B = self.cells_B + first_B * (self.cells - kept_cells)
        self._viewed = (-1, -1)

    def release(self) -> None:
        """Give the memory back; nothing is kept."""
        self.rows = self.cells = 0
        self.data, self._flat, self._views, self._viewed = self._new(0, 0), [], [], (-1, -1)
        self._mask, self.cells_B = self._mask[:0, :0], self.cells_B[:0]

    def put(self, first: int, count: int, saved: Tensor) -> None:
        """Write one saved sequence, (layers, length, 2 K, D), to `count` rows from `first` on."""
        self.data[:, first : first + count, : saved.shape[1]] = saved.unsqueeze(1)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row over another."""
        self.data[:, target, :length] = self.data[:, source, :length]

    def save(self, row: int, length: int) -> Tensor:
        """A copy of a row's first cells, (layers, length, 2 K, D)."""
        return self.data[:, row, :length].clone()

    def place(self, lengths: list[int]) -> None:
        """Row i holds `lengths[i]` cells; its next token goes into the one after them."""
        count = len(lengths)
        held = torch.tensor(lengths, device=self.device)
        self.cells_B = torch.arange(count, device=self.device) * self.cells + held
        free = torch.arange(self.cells, device=self.device) >= held.unsqueeze(1)
        self._mask[:count] = torch.zeros(1, dtype=self.dtype, device=self.device).masked_fill(
            free, float("-inf")
        )

    def open(self, count: int, longest: int) -> None:
        """Begin a step of `count` rows, the longest with that many cells, the new one included."""
        self._mask.view(-1).index_fill_(0, self.cells_B, 0.0)
        cells = min(-(-longest // STEP) * STEP, self.cells)
        if self._viewed == (count, cells):
            return
        self._viewed, keys = (count, cells), self.shape.kv_heads
        self._mask_view = self._mask[:count, None, None, :cells]
        used = [layer[:count, :cells].transpose(1, 2) for layer in self.data]
        self._views = [(both[:, :keys], both[:, keys:]) for both in used]

    def close(self) -> None:
        """End a step: every row is one cell longer."""
        self.cells_B += 1

    def attend(self, layer: int, q_BQD: Tensor, kv_B2KD: Tensor) -> Tensor:
        """Write the new cell of each row, then attend; queries that share a key head go as one block of queries."""
        self._flat[layer].index_copy_(0, self.cells_B, kv_B2KD)
        k, v = self._views[layer]
        q = q_BQD.view(q_BQD.shape[0], self.shape.kv_heads, -1, q_BQD.shape[2])
        return F.scaled_dot_product_attention(q, k, v, self._mask_view).flatten(1)

    def write(self, layer: int, cells_N: Tensor, kv_N2KD: Tensor) -> None:
        """Write cells by their places in the store, row after row."""
        self._flat[layer].index_copy_(0, cells_N, kv_N2KD)

    def _new(self, rows: int, cells: int) -> Tensor:
        s = self.shape
        size = (s.layers, rows, cells, 2 * s.kv_heads, s.head_dim)
        return torch.zeros(size, dtype=self.dtype, device=self.device)


def _grown(wanted: int, least: int) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << max(0, wanted - 1).bit_length()) if wanted else 0


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
