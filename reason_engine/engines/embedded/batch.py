"""The running rows: they join and leave between steps, and each step gives every row one token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reason_engine.engines.embedded.checking import Ragged
from reason_engine.engines.embedded.decoder import Decoder
from reason_engine.engines.embedded.keyvalues import KeyValues
from reason_engine.engines.embedded.patch import Patch
from reason_engine.engines.embedded.row import Row
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
