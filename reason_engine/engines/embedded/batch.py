"""The running rows: they join and leave between steps, and each step gives every row one token.

Drafts of every row checked in one pass: each row's last token and its drafted ones, side by side, over the store.

Rows are ragged: only the tokens that there are go through the matrices. For attention the queries are padded to the
longest row, and each sees its row's cells up to its own; cells of drafts that were wrong are overwritten later.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.cache import STEP, KeyValues
from reason_engine.engines.embedded.model.adapter_layers import Patch
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.rows import Row
from reason_engine.engines.embedded.sampler import Checked, Drawn, Sampler


class Batch:
    """Row i of `rows` is row i of the store, which holds all its tokens but the last."""

    def __init__(self, decoder: Decoder, store: KeyValues) -> None:
        self.decoder, self.store = decoder, store
        self.rows: list[Row] = []
        self.drafting = 0
        """How many of the rows may draft."""
        self._changed = self._stale = False
        self._longest = 0
        self._tokens_B = self._places_B = torch.empty(0, dtype=torch.long)
        self._sampler: Sampler | None = None

    def join(self, rows: list[Row], kv: Tensor) -> None:
        """Rows that share these keys and values, (layers, length, 2 K, D), each with one more token drawn."""
        first = len(self.rows)
        self.store.ensure(first + len(rows), kv.shape[1] + 1)
        self.store.put(first, len(rows), kv)
        self.rows += rows
        self.drafting += sum(row.drafts is not None for row in rows)
        self._changed = True

    def leave(self, row: Row) -> None:
        """Take a row out; the last one takes its place."""
        at, last = self.rows.index(row), len(self.rows) - 1
        if at != last:
            moved = self.rows[at] = self.rows[last]
            self.store.move(last, at, len(moved.ids) - 1)
        self.rows.pop()
        self.drafting -= row.drafts is not None
        self._changed = True

    def save(self, row: Row) -> Tensor:
        """A copy of its keys and values: all its tokens but the last."""
        return self.store.save(self.rows.index(row), len(row.ids) - 1)

    def step(self, patch: Patch | None) -> Drawn:
        """One token for every row, in the order of `rows`."""
        if self._changed or self._stale:
            self._settle()
        store, sampler = self.store, self._sampler
        assert sampler is not None
        store.ensure(len(self.rows), self._longest)
        store.open(len(self.rows), self._longest)
        if patch is not None:
            patch.select([row.adapter for row in self.rows])
        hidden = self.decoder.forward(self._tokens_B, self._places_B, store.attend, self._longest, patch)
        drawn = sampler.draw(self.decoder.logits(hidden))
        store.close()
        self._tokens_B = drawn.tokens_B
        self._places_B += 1
        self._longest += 1
        return drawn

    def check(self, drafts: Sequence[list[int]], patch: Patch | None) -> list[Checked]:
        """One token for every row, and as many more as its drafted ones are right, in the order of `rows`.

        The rows must have taken them, or left, before the next step.
        """
        if self._changed:
            self._settle()
        rows, store, sampler = self.rows, self.store, self._sampler
        assert sampler is not None
        lengths, counts = [len(row.ids) - 1 for row in rows], [len(draft) + 1 for draft in drafts]
        store.ensure(len(rows), max(length + n for length, n in zip(lengths, counts, strict=True)))
        ragged = Ragged(store, lengths, counts)
        tokens = [token for row, draft in zip(rows, drafts, strict=True) for token in (row.ids[-1], *draft)]
        if patch is not None:
            patch.select([row.adapter for row, n in zip(rows, counts, strict=True) for _ in range(n)])
        tokens_N = torch.tensor(tokens, device=self.decoder.device)
        hidden = self.decoder.forward(tokens_N, ragged.places_N, ragged.attend, ragged.longest, patch)
        self._stale = True
        return sampler.check(self.decoder.logits(hidden), drafts)

    def room(self, most_bytes: int, wanted: int) -> int:
        """Cells that a row may use in the next step: so many more than the longest has, where the store may grow."""
        cells = max(len(row.ids) for row in self.rows) + wanted
        fits = self.store.bytes_for(len(self.rows), cells) <= most_bytes
        return cells if fits else self.store.cells

    def needs(self, more_rows: int = 0, cells: int = 0) -> int:
        """Bytes of a store for these rows and so many more, each at least `cells` long and able to go on."""
        longest = max([cells, *(len(row.ids) for row in self.rows)]) + 1
        return self.store.bytes_for(len(self.rows) + more_rows, longest)

    def _settle(self) -> None:
        """Lay out the small per-row tensors anew."""
        device, rows = self.decoder.device, self.rows
        lengths = [len(row.ids) - 1 for row in rows]
        self._longest = max(lengths, default=0) + 1
        self.store.ensure(len(rows), self._longest)
        self.store.place(lengths)
        self._tokens_B = torch.tensor([row.ids[-1] for row in rows], dtype=torch.long, device=device)
        self._places_B = torch.tensor(lengths, dtype=torch.long, device=device)
        if self._changed:
            self._sampler = sampler_for(rows, self.decoder)
        self._changed = self._stale = False


def sampler_for(rows: list[Row], decoder: Decoder) -> Sampler:
    """A sampler that draws the next token of each of these rows."""
    return Sampler(
        [row.request.sampling for row in rows],
        [row.seed for row in rows],
        [row.ids[row.learned :] if row.learned else row.ids for row in rows],
        [row.prompt - row.learned for row in rows],
        [row.matcher for row in rows],
        decoder.shape.vocab,
        decoder.device,
    )


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
