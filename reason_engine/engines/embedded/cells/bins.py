"""Rows of about the same length: one rectangle of keys and values, (layers, rows, cells, 2 K, D), attended together.

Keys stand first, then values; rows are padded at the right and packed without holes. A plain step is one token a row.
A step that checks drafts takes each row's last token and its drafted ones, side by side: for attention the queries are
padded to the longest row, and each sees its row's cells up to its own. Cells of drafts that were wrong are overwritten
later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.cells.attention import attend_part
from reason_engine.engines.embedded.model.shape import Shape

CELL_STEP = 16
"""Cells attended over are rounded up to this, so that views of the store last for many steps."""


class Bin:
    """Rows of at most `cells` cells each, and attention of one new token a row."""

    def __init__(self, shape: Shape, cells: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.cells, self.dtype, self.device = shape, cells, dtype, device
        self.rows = 0
        self.data, self._flat = self._new(0), list[Tensor]()
        self._mask = torch.empty(0, cells, dtype=dtype, device=device)
        self._at_B = torch.empty(0, dtype=torch.long, device=device)
        self._longest = 0
        self._views, self._viewed, self._mask_view = list[tuple[Tensor, Tensor]](), (-1, -1), self._mask

    def resize(self, rows: int) -> None:
        """Make room for so many rows, or give back the room of those above."""
        kept, old = min(rows, self.rows), self.data
        self.data = self._new(rows)
        self.data[:, :kept] = old[:, :kept]
        self._flat = [layer.flatten(0, 1) for layer in self.data]
        self._mask = torch.full((rows, self.cells), float("-inf"), dtype=self.dtype, device=self.device)
        self.rows, self._viewed = rows, (-1, -1)

    def put(self, row: int, count: int, kv: Tensor) -> None:
        """Write one sequence, (layers, length, 2 K, D), to `count` rows from `row` on."""
        self.data[:, row : row + count, : kv.shape[1]] = kv.unsqueeze(1)

    def move(self, row: int, to: int, length: int) -> None:
        """Copy a row's cells to another row."""
        self.data[:, to, :length] = self.data[:, row, :length]

    def row(self, row: int, length: int) -> Tensor:
        """A row's first cells, (layers, length, 2 K, D), a view."""
        return self.data[:, row, :length]

    def place(self, lengths: Sequence[int]) -> None:
        """Row i holds `lengths[i]` cells; its next token goes into the one after them."""
        held = torch.tensor(lengths, device=self.device)
        self._at_B = torch.arange(len(lengths), device=self.device) * self.cells + held
        free = torch.arange(self.cells, device=self.device) >= held.unsqueeze(1)
        zero = torch.zeros(1, dtype=self.dtype, device=self.device)
        self._mask[: len(lengths)] = zero.masked_fill(free, float("-inf"))
        self._longest = max(lengths) + 1

    def open(self) -> None:
        """Begin a step of the rows that were placed."""
        self._mask.view(-1).index_fill_(0, self._at_B, 0.0)
        count, cells = self._at_B.shape[0], min(-(-self._longest // CELL_STEP) * CELL_STEP, self.cells)
        if self._viewed == (count, cells):
            return
        self._viewed, keys = (count, cells), self.shape.kv_heads
        self._mask_view = self._mask[:count, None, None, :cells]
        used = [layer[:count, :cells].transpose(1, 2) for layer in self.data]
        self._views = [(both[:, :keys], both[:, keys:]) for both in used]

    def close(self) -> None:
        """End a step: every row is one cell longer."""
        self._at_B += 1
        self._longest += 1

    def attend(self, layer: int, q_BQD: Tensor, kv_B2KD: Tensor) -> Tensor:
        """(B, Q D): write the new cell of each row, then attend; queries that share a key head go as one block."""
        self._flat[layer].index_copy_(0, self._at_B, kv_B2KD)
        k, v = self._views[layer]
        q = q_BQD.view(q_BQD.shape[0], self.shape.kv_heads, -1, q_BQD.shape[2])
        return F.scaled_dot_product_attention(q, k, v, self._mask_view).flatten(1)

    def attend_part(self, layer: int, q_BQD: Tensor, kv_B2KD: Tensor) -> tuple[Tensor, Tensor]:
        """The same, (B, K, G, D), with the logarithms of the sums, (B, K, G)."""
        self._flat[layer].index_copy_(0, self._at_B, kv_B2KD)
        k, v = self._views[layer]
        q = q_BQD.view(q_BQD.shape[0], self.shape.kv_heads, -1, q_BQD.shape[2])
        return attend_part(q, k, v, self._mask_view)

    def write(self, layer: int, at_N: Tensor, kv_N2KD: Tensor) -> None:
        """Write cells by their places, row after row."""
        self._flat[layer].index_copy_(0, at_N, kv_N2KD)

    def _new(self, rows: int) -> Tensor:
        size = (self.shape.layers, rows, self.cells, 2 * self.shape.kv_heads, self.shape.head_dim)
        return torch.zeros(size, dtype=self.dtype, device=self.device)


class BinCheck:
    """Attention of row i's tokens into its cells `lengths[i]` to `lengths[i] + counts[i] - 1`."""

    def __init__(self, store: Bin, lengths: Sequence[int], counts: Sequence[int]) -> None:
        device = store.device
        self.store, self.rows, self.width = store, len(lengths), max(counts)
        longest = max(length + count for length, count in zip(lengths, counts, strict=True))
        self.used = min(-(-longest // CELL_STEP) * CELL_STEP, store.cells)
        cells, slots = list[int](), list[int]()
        for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            cells += range(row * store.cells + length, row * store.cells + length + count)
            slots += range(row * self.width, row * self.width + count)
        self.cells_N, self.slots_N = torch.tensor([cells, slots], device=device)
        self.full = len(slots) == self.rows * self.width
        group = store.shape.heads // store.shape.kv_heads
        last_BT = torch.tensor(lengths, device=device).unsqueeze(1) + torch.arange(self.width, device=device)
        ahead = torch.arange(self.used, device=device) > last_BT.unsqueeze(2)
        zero = torch.zeros((), dtype=store.dtype, device=device)
        self.mask = zero.masked_fill(ahead, float("-inf")).repeat_interleave(group, 1).unsqueeze(1)

    def attend(self, layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> Tensor:
        """(N, Q D). Queries that share a key head go as one block, as in a plain step."""
        q, k, v = self._prepare(layer, q_NQD, kv_N2KD)
        return self._packed(F.scaled_dot_product_attention(q, k, v, self.mask)).flatten(1)

    def attend_part(self, layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> tuple[Tensor, Tensor]:
        """The same, (N, K, G, D), with the logarithms of the sums, (N, K, G)."""
        out, sums = attend_part(*self._prepare(layer, q_NQD, kv_N2KD), self.mask)
        return self._packed(out), self._packed(sums)

    def _prepare(self, layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        store, keys = self.store, self.store.shape.kv_heads
        store.write(layer, self.cells_N, kv_N2KD)
        q = q_NQD
        if not self.full:
            q = q_NQD.new_zeros(self.rows * self.width, *q_NQD.shape[1:]).index_copy_(0, self.slots_N, q_NQD)
        q = q.reshape(self.rows, self.width, keys, -1, q.shape[-1]).transpose(1, 2).flatten(2, 3)
        both = store.data[layer, : self.rows, : self.used].transpose(1, 2)
        return q, both[:, :keys], both[:, keys:]

    def _packed(self, x: Tensor) -> Tensor:
        """(rows, K, width G, ...) as (N, K, G, ...): the tokens that there are."""
        x = x.unflatten(2, (self.width, -1)).transpose(1, 2).flatten(0, 1)
        return x if self.full else x.index_select(0, self.slots_N)
