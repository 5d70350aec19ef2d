"""Drafts of every row checked in one pass: each row's last token and its drafted ones, side by side, over the store.

Rows are ragged: only the tokens that there are go through the matrices. For attention the queries are padded to the
longest row, and each sees its row's cells up to its own; cells of drafts that were wrong are overwritten later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.keyvalues import STEP, KeyValues


class Ragged:
    """Attention of row i's tokens at places `lengths[i]` to `lengths[i] + counts[i] - 1`."""

    def __init__(self, store: KeyValues, lengths: Sequence[int], counts: Sequence[int]) -> None:
        device = store.device
        self.store, self.rows, self.width = store, len(lengths), max(counts)
        self.longest = max(length + count for length, count in zip(lengths, counts, strict=True))
        self.used = min(-(-self.longest // STEP) * STEP, store.cells)
        places: list[int] = []
        cells: list[int] = []
        slots: list[int] = []
        for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
            places += range(length, length + count)
            cells += range(row * store.cells + length, row * store.cells + length + count)
            slots += range(row * self.width, row * self.width + count)
        self.places_N, self.cells_N, self.slots_N = torch.tensor([places, cells, slots], device=device)
        self.full = len(slots) == self.rows * self.width
        group = store.shape.heads // store.shape.kv_heads
        last_B1 = torch.tensor(lengths, device=device).unsqueeze(1)
        last_BT = last_B1 + torch.arange(self.width, device=device)
        ahead = torch.arange(self.used, device=device) > last_BT.unsqueeze(2)
        zero = torch.zeros((), dtype=store.dtype, device=device)
        mask = zero.masked_fill(ahead, float("-inf")).repeat_interleave(group, 1)
        self.mask = mask.unsqueeze(1)

    def attend(self, layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> Tensor:
        """(N, Q D). Queries that share a key head go as one block, as in a plain step."""
        store, keys = self.store, self.store.shape.kv_heads
        store.write(layer, self.cells_N, kv_N2KD)
        q = q_NQD
        if not self.full:
            q = q_NQD.new_zeros(self.rows * self.width, *q_NQD.shape[1:]).index_copy_(0, self.slots_N, q_NQD)
        q = q.reshape(self.rows, self.width, keys, -1, q.shape[-1]).transpose(1, 2).flatten(2, 3)
        both = store.data[layer, : self.rows, : self.used].transpose(1, 2)
        a = F.scaled_dot_product_attention(q, both[:, :keys], both[:, keys:], self.mask)
        a = a.unflatten(2, (self.width, -1)).transpose(1, 2).reshape(self.rows * self.width, -1)
        return a if self.full else a.index_select(0, self.slots_N)
