"""The running samples, and the steps that give each of them tokens.

A sample joins and leaves between steps. It has a row in the store of keys and values, and a plain step is one token a
row. A step that checks drafts takes each row's last token and its drafted ones, side by side: only the tokens that
there are go through the matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reason_engine.engines.embedded.cells.prefixes import PrefixCache
from reason_engine.engines.embedded.cells.rows import KeyValues, Row
from reason_engine.engines.embedded.cells.shared import SharedPrompts
from reason_engine.engines.embedded.model.adapters import AdapterLayers
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.sample import Sample
from reason_engine.engines.embedded.sampling.sampler import CheckedDraft, Drawn, Sampler


class Batch:
    """`samples` stand in the order of their rows, each of which holds all of a sample's tokens but the last."""

    def __init__(self, decoder: Decoder, prefixes: PrefixCache) -> None:
        self.decoder, self.prefixes = decoder, prefixes
        self.store = KeyValues(decoder.shape, decoder.dtype, decoder.device)
        self.shared = SharedPrompts(prefixes)
        self.samples: list[Sample] = []
        self.drafting = 0
        """How many of the samples may draft."""
        self._rows: dict[Sample, Row] = {}
        self._changed = self._stale = False
        self._version = self._longest = self._slack = 0
        self._tokens_B = self._places_B = torch.empty(0, dtype=torch.long)
        self._sampler: Sampler | None = None

    def join(self, samples: Sequence[Sample], kv: Tensor, shared: int) -> None:
        """Samples of one request that share all these keys and values, (layers, length, 2 K, D), each with one more
        token drawn. The first `shared` cells are attended once for all."""
        first = samples[0]
        common = self.shared.open(first.space, first.ids[: kv.shape[1]], kv, shared) if shared else None
        rows = [Row(one.ids, common) for one in samples]
        self.store.add(rows, kv)
        self._rows.update(zip(samples, rows, strict=True))
        self.drafting += sum(one.drafter is not None for one in samples)
        self._reorder()

    def leave(self, sample: Sample) -> None:
        """Take a sample out."""
        row = self._rows.pop(sample)
        self.store.remove(row)
        if row.shared is not None:
            self.shared.leave(row.shared)
        self.drafting -= sample.drafter is not None
        self._reorder()

    def save(self, sample: Sample) -> None:
        """Keep its cells in the prefix cache: those of all its tokens but the last."""
        row = self._rows[sample]
        start = row.shared.length if row.shared is not None else 0
        self.prefixes.add(sample.space, sample.ids[:-1], self.store.cells(row), start)

    def needs_room(self, more: int) -> bool:
        """Whether it must be seen to that every sample may go on by that many tokens."""
        if self._stale:
            self._slack = self._room_left()
        return self._changed or self._slack < more

    def make_room(self, more: int) -> None:
        """Let every sample go on by that many tokens."""
        if self.store.make_room(more):
            self._reorder()
        self._slack = self._room_left()

    def trim(self) -> None:
        """Give back the room that no sample uses."""
        self.store.trim()
        self._stale = True

    def bytes_needed(self, more: int, joining: Mapping[int, int]) -> int:
        """Bytes for these samples, each going on by that many tokens, and so many others by the size of their bin."""
        counts = self.store.counts(more)
        counts.update(joining)
        return self.store.bytes_for(counts) + self.shared.nbytes

    def step(self, adapters: AdapterLayers | None) -> Drawn:
        """One token for every sample, in the order of `samples`. There must be room for it."""
        if self._changed or self._stale or self._version != self.prefixes.version:
            self._lay_out()
        store, sampler = self.store, self._sampler
        assert sampler is not None
        store.open()
        if adapters is not None:
            adapters.select([one.adapter for one in self.samples])
        hidden = self.decoder.forward(self._tokens_B, self._places_B, store.attend, self._longest, adapters)
        drawn = sampler.draw(self.decoder.logits(hidden))
        store.close()
        self._tokens_B = drawn.tokens_B
        self._places_B += 1
        self._longest += 1
        self._slack -= 1
        return drawn

    def check(self, drafts: Sequence[list[int]], adapters: AdapterLayers | None) -> list[CheckedDraft]:
        """One token for every sample, and as many more as its drafted ones are right, in the order of `samples`.

        There must be room for them. The samples must have taken them, or left, before the next step.
        """
        if self._changed:
            self._lay_out()
        samples, sampler, device = self.samples, self._sampler, self.decoder.device
        assert sampler is not None
        counts = [len(draft) + 1 for draft in drafts]
        tokens = [token for one, draft in zip(samples, drafts, strict=True) for token in (one.ids[-1], *draft)]
        places = [len(one.ids) - 1 + i for one, count in zip(samples, counts, strict=True) for i in range(count)]
        if adapters is not None:
            adapters.select([one.adapter for one, n in zip(samples, counts, strict=True) for _ in range(n)])
        tokens_N, places_N = torch.tensor([tokens, places], device=device)
        attend = self.store.check(counts)
        hidden = self.decoder.forward(tokens_N, places_N, attend, max(places) + 1, adapters)
        self._stale = True
        return sampler.check(self.decoder.logits(hidden), drafts)

    def _room_left(self) -> int:
        """By how many tokens every sample may go on where it stands."""
        return min((row.bin - row.own for row in self._rows.values()), default=0)

    def _reorder(self) -> None:
        of = {row: sample for sample, row in self._rows.items()}
        self.samples = [of[row] for row in self.store.rows]
        self._changed = True

    def _lay_out(self) -> None:
        """Lay out the small per-row tensors anew."""
        device, samples = self.decoder.device, self.samples
        lengths = [len(one.ids) - 1 for one in samples]
        self._longest = max(lengths, default=0) + 1
        self.store.lay_out()
        self._tokens_B = torch.tensor([one.ids[-1] for one in samples], dtype=torch.long, device=device)
        self._places_B = torch.tensor(lengths, dtype=torch.long, device=device)
        if self._changed:
            self._sampler = sampler_of(samples, self.decoder)
        self._changed = self._stale = False
        self._version = self.prefixes.version


def sampler_of(samples: Sequence[Sample], decoder: Decoder) -> Sampler:
    """A sampler that draws the next token of each."""
    return Sampler(
        [one.request.sampling for one in samples],
        [one.request.sampling.seed + one.index for one in samples],
        [one.ids[one.learned :] if one.learned else one.ids for one in samples],
        [one.prompt - one.learned for one in samples],
        [one.matcher for one in samples],
        decoder.shape.vocab,
        decoder.device,
    )
