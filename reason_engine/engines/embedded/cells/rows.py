"""The store: rows of keys and values in bins by length. A row costs what it holds, not what the longest one does.

A row has the cells of its first tokens in common with other rows, where they are shared, and its own in the bin of the
next power of two. It moves on to the next bin when it outgrows its own; copies are amortised, as in an array that
doubles. Rows of one length, as of one request, stand in one bin, and a step is then one attention a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reason_engine.engines.embedded.cells.bins import Bin, BinCheck
from reason_engine.engines.embedded.cells.shared import SharedAttention, SharedCells
from reason_engine.engines.embedded.model.decoder import Attend
from reason_engine.engines.embedded.model.shape import Shape

LEAST_CELLS, ROW_STEP = 128, 8
"""Cells of the smallest bin; rows of a bin are rounded up to this from there on, and to powers of two below."""


@dataclass(slots=True, eq=False)
class Row:
    """One running sequence: `ids` grow, and all of them but the last have their cells. `bin`: how many cells its own
    place has."""

    ids: Sequence[int]
    shared: SharedCells | None
    bin: int = 0

    @property
    def own(self) -> int:
        """How many cells are its own."""
        return len(self.ids) - 1 - (self.shared.length if self.shared is not None else 0)


class KeyValues:
    """All rows, in the order of their bins. What changes their order or number asks for `lay_out` before a step."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.cell_bytes = shape.layers * 2 * shape.kv_heads * shape.head_dim * dtype.itemsize
        self.attend: Attend = self._attend_bins
        self._bins: dict[int, Bin] = {}
        self._rows: dict[int, list[Row]] = {}
        self._ranges: list[tuple[Bin, slice]] = []
        self._shared: SharedAttention | None = None

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self._rows.values() for row in rows]

    @property
    def nbytes(self) -> int:
        """The size of all bins."""
        return sum(one.rows * one.cells for one in self._bins.values()) * self.cell_bytes

    def bytes_for(self, counts: Mapping[int, int]) -> int:
        """The size that so many rows by bin need."""
        return sum(_grown(count) * cells for cells, count in counts.items()) * self.cell_bytes

    def counts(self, more: int) -> Counter[int]:
        """How many rows each bin would hold, were every row to go on by that many cells."""
        return Counter(capacity(row.own + more) for rows in self._rows.values() for row in rows)

    def add(self, rows: Sequence[Row], kv: Tensor) -> None:
        """Rows that begin with the same keys and values, (layers, length, 2 K, D), all of which are given."""
        first = rows[0]
        kv = kv[:, kv.shape[1] - first.own :]
        cells = capacity(first.own + 1)
        place, at = self._take(cells, len(rows))
        place.put(at, len(rows), kv)
        for row in rows:
            row.bin = cells
            if row.shared is not None:
                row.shared.users += 1
        self._rows[cells] += rows

    def remove(self, row: Row) -> None:
        """Take a row out; the last one of its bin takes its place."""
        rows = self._rows[row.bin]
        at, last = rows.index(row), len(rows) - 1
        if at != last:
            moved = rows[at] = rows[last]
            self._bins[row.bin].move(last, at, moved.own)
        rows.pop()
        if not any(self._rows.values()):
            self._ranges, self._shared, self.attend = [], None, self._attend_bins

    def cells(self, row: Row) -> Tensor:
        """A copy of a row's own cells, (layers, length, 2 K, D)."""
        return self._bins[row.bin].row(self._rows[row.bin].index(row), row.own).clone()

    def make_room(self, more: int) -> bool:
        """Let every row go on by that many cells; whether rows changed their places."""
        moving = [row for rows in self._rows.values() for row in rows if row.own + more > row.bin]
        wanted = Counter(capacity(row.own + more) for row in moving)
        for cells, count in wanted.items():
            self._take(cells, count)
        for row in reversed(moving):
            old = self._bins[row.bin].row(self._rows[row.bin].index(row), row.own)
            cells = capacity(row.own + more)
            place, at = self._take(cells, 1)
            place.put(at, 1, old)
            self.remove(row)
            row.bin = cells
            self._rows[cells].append(row)
        return bool(moving)

    def trim(self) -> None:
        """Give back the room that no row uses."""
        for cells, rows in list(self._rows.items()):
            if not rows:
                del self._rows[cells], self._bins[cells]
            elif _grown(len(rows)) < self._bins[cells].rows:
                self._bins[cells].resize(_grown(len(rows)))

    def lay_out(self) -> None:
        """After a change: note where every row stands."""
        self._ranges, at = list[tuple[Bin, slice]](), 0
        for cells, rows in self._rows.items():
            if rows:
                self._bins[cells].place([row.own for row in rows])
                self._ranges.append((self._bins[cells], slice(at, at + len(rows))))
                at += len(rows)
        shared = [row.shared for row in self.rows]
        self._shared = None
        if any(shared):
            self._shared = SharedAttention(self.shape, shared, [1] * at, self.device)
            self.attend = self._attend_shared
        else:
            self.attend = self._ranges[0][0].attend if len(self._ranges) == 1 else self._attend_bins

    def open(self) -> None:
        """Begin a step of one token a row, attended by `attend`."""
        for place, _ in self._ranges:
            place.open()

    def close(self) -> None:
        """End it: every row is one cell longer."""
        for place, _ in self._ranges:
            place.close()

    def check(self, counts: Sequence[int]) -> Attend:
        """Attention of so many new tokens a row, for which there is room. It leaves the rows as long as they are."""
        parts, at, tokens = list[tuple[BinCheck, slice]](), 0, 0
        for cells, rows in self._rows.items():
            if rows:
                here = counts[at : at + len(rows)]
                check = BinCheck(self._bins[cells], [row.own for row in rows], here)
                parts.append((check, slice(tokens, tokens + sum(here))))
                at, tokens = at + len(rows), tokens + sum(here)
        shared = [row.shared for row in self.rows]
        merged = SharedAttention(self.shape, shared, counts, self.device) if any(shared) else None
        return lambda layer, q, kv: _attend(layer, q, kv, parts, merged)

    def _attend_bins(self, layer: int, q_BQD: Tensor, kv_B2KD: Tensor) -> Tensor:
        return _attend(layer, q_BQD, kv_B2KD, self._ranges, None)

    def _attend_shared(self, layer: int, q_BQD: Tensor, kv_B2KD: Tensor) -> Tensor:
        return _attend(layer, q_BQD, kv_B2KD, self._ranges, self._shared)

    def _take(self, cells: int, count: int) -> tuple[Bin, int]:
        """The bin of that size with room for so many more rows, and where they go."""
        if cells not in self._bins:
            self._bins[cells] = Bin(self.shape, cells, self.dtype, self.device)
            self._rows = dict(sorted({**self._rows, cells: []}.items()))
        place, at = self._bins[cells], len(self._rows[cells])
        if at + count > place.rows:
            place.resize(_grown(at + count))
        return place, at


def _attend(
    layer: int,
    q_NQD: Tensor,
    kv_N2KD: Tensor,
    parts: Iterable[tuple[Bin | BinCheck, slice]],
    shared: SharedAttention | None,
) -> Tensor:
    """(N, Q D): every bin's queries over their rows' own cells, then all over the shared ones."""
    if shared is None:
        outs = [place.attend(layer, q_NQD[at], kv_N2KD[at]) for place, at in parts]
        return outs[0] if len(outs) == 1 else torch.cat(outs)
    found = [place.attend_part(layer, q_NQD[at], kv_N2KD[at]) for place, at in parts]
    if len(found) == 1:
        return shared.merge(layer, q_NQD, *found[0])
    return shared.merge(layer, q_NQD, torch.cat([out for out, _ in found]), torch.cat([sums for _, sums in found]))


def capacity(cells: int) -> int:
    """Cells of the bin for rows of that length: the next power of two."""
    return max(LEAST_CELLS, 1 << max(0, cells - 1).bit_length())


def _grown(rows: int) -> int:
    """Rows that a bin has room for when it holds so many."""
    if rows <= ROW_STEP:
        return 1 << max(0, rows - 1).bit_length() if rows else 0
    return -(-rows // ROW_STEP) * ROW_STEP
