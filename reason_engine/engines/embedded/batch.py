"""The running samples: their tokens and text, their keys and values, and the steps that give each of them tokens.

A sample joins and leaves between steps. It has a row in one preallocated, right-padded store of keys and values, packed
without holes, and a plain step is one token a row. A step that checks drafts takes each row's last token and its
drafted ones, side by side: only the tokens that there are go through the matrices; for attention the queries are padded
to the longest row, and each sees its row's cells up to its own. Cells of drafts that were wrong are overwritten later.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.drafting import SampleDrafter
from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import Delta, Generate
from reason_engine.engines.embedded.model.adapters import AdapterLayers
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.sampling.sampler import CheckedDraft, Drawn, RawLogprob, Sampler
from reason_engine.engines.text import Detokenizer, StopFinder, Vocabulary
from reason_engine.types import FinishReason, TokenLogprob

CELL_STEP = 16
"""Cells attended over are rounded up to this, so that views of the store last for many steps."""


@dataclass(slots=True, eq=False)
class Sample:
    """`ids` is prompt and answer together; `prompt` tokens of it were given. It ends at `limit` tokens in all."""

    request: Generate
    index: int
    ids: list[int]
    prompt: int
    limit: int
    ends: frozenset[int]
    vocabulary: Vocabulary
    text: Detokenizer
    stops: StopFinder
    matcher: Matcher | None = None
    adapter: int = 0
    space: Hashable = None
    learned: int = 0
    """How many of the given tokens, the first ones, are its adapter's own."""
    reports_prompt: bool = False
    """Whether it reports the prompt's tokens: one sample of a request does, the first that is left of it."""
    prompt_counts: tuple[int, int] = (0, 0)
    """Prompt and cached tokens, until they are reported."""
    drafter: SampleDrafter | None = None
    finish: FinishReason | None = None
    stop_reason: str | int | None = None

    def extend(self, tokens: Sequence[int], logprobs: Sequence[RawLogprob] | None = None, drafted: int = 0) -> Delta:
        """Go on by drawn tokens, up to its end; sets `finish` there. `drafted`: how many were drafted, of which all
        of `tokens` but the last were right."""
        wanted = self.request.sampling.logprobs
        shown, reported = "", list[TokenLogprob]()
        taken = 0
        for taken, token in enumerate(tokens, 1):
            shown += self._append(token)
            if wanted is not None and logprobs is not None:
                reported.append(self._logprob(token, logprobs[taken - 1], wanted))
            if self.finish is not None:
                break
        accepted = min(taken, len(tokens) - 1)
        return self._delta(shown, tokens[:taken], reported, (accepted, drafted - accepted))

    def abort(self) -> Delta:
        """End it from outside; shows the text that was held back."""
        self.finish = "abort"
        return self._delta(self._rest())

    def _append(self, token: int) -> str:
        self.ids.append(token)
        if token in self.ends:
            self.finish = "stop"
            self.stop_reason = token if token in self.request.sampling.stop_token_ids else None
            return self._rest()
        shown, found = self.stops.feed(self.text.feed(token))
        if found is not None:
            self.finish, self.stop_reason = "stop", found
        elif self.matcher is not None and self.matcher.take(token):
            self.finish = "stop"
            shown += self._rest()
        elif len(self.ids) >= self.limit:
            self.finish = "length"
            shown += self._rest()
        return shown

    def _logprob(self, token: int, raw: RawLogprob, count: int) -> TokenLogprob:
        """With the texts of the tokens, and no more alternatives than were asked for."""
        name = self.vocabulary.text_of
        return TokenLogprob(token, name(token), raw[0], tuple((t, name(t), v) for t, v in raw[1][:count]))

    def _rest(self) -> str:
        shown, found = self.stops.feed(self.text.finish())
        return shown if found is not None else shown + self.stops.finish()

    def _delta(
        self,
        text: str,
        ids: Sequence[int] = (),
        logprobs: Sequence[TokenLogprob] = (),
        drafts: tuple[int, int] = (0, 0),
    ) -> Delta:
        gained = (text, tuple(ids), tuple(logprobs), self.finish, self.stop_reason)
        counts, self.prompt_counts = self.prompt_counts, (0, 0)
        return Delta(self.request.id, self.index, *gained, *counts, *drafts)


class Batch:
    """Sample i of `samples` has row i of the store, which holds all its tokens but the last."""

    def __init__(self, decoder: Decoder, store: KeyValues) -> None:
        self.decoder, self.store = decoder, store
        self.samples: list[Sample] = []
        self.drafting = 0
        """How many of the samples may draft."""
        self._changed = self._stale = False
        self._longest = 0
        self._tokens_B = self._places_B = torch.empty(0, dtype=torch.long)
        self._sampler: Sampler | None = None

    def join(self, samples: list[Sample], kv: Tensor) -> None:
        """Samples that share these keys and values, (layers, length, 2 K, D), each with one more token drawn."""
        first = len(self.samples)
        self.store.ensure(first + len(samples), kv.shape[1] + 1)
        self.store.put(first, len(samples), kv)
        self.samples += samples
        self.drafting += sum(one.drafter is not None for one in samples)
        self._changed = True

    def leave(self, sample: Sample) -> None:
        """Take a sample out; the last one takes its row."""
        at, last = self.samples.index(sample), len(self.samples) - 1
        if at != last:
            moved = self.samples[at] = self.samples[last]
            length = len(moved.ids) - 1
            self.store.data[:, at, :length] = self.store.data[:, last, :length]
        self.samples.pop()
        self.drafting -= sample.drafter is not None
        self._changed = True

    def save(self, sample: Sample) -> Tensor:
        """A copy of its keys and values, (layers, length, 2 K, D): all its tokens but the last."""
        return self.store.data[:, self.samples.index(sample), : len(sample.ids) - 1].clone()

    def step(self, adapters: AdapterLayers | None) -> Drawn:
        """One token for every sample, in the order of `samples`."""
        if self._changed or self._stale:
            self._lay_out()
        store, sampler = self.store, self._sampler
        assert sampler is not None
        store.ensure(len(self.samples), self._longest)
        store.open(len(self.samples), self._longest)
        if adapters is not None:
            adapters.select([one.adapter for one in self.samples])
        hidden = self.decoder.forward(self._tokens_B, self._places_B, store.attend, self._longest, adapters)
        drawn = sampler.draw(self.decoder.logits(hidden))
        store.close()
        self._tokens_B = drawn.tokens_B
        self._places_B += 1
        self._longest += 1
        return drawn

    def check(self, drafts: Sequence[list[int]], adapters: AdapterLayers | None) -> list[CheckedDraft]:
        """One token for every sample, and as many more as its drafted ones are right, in the order of `samples`.

        The samples must have taken them, or left, before the next step.
        """
        if self._changed:
            self._lay_out()
        samples, store, sampler = self.samples, self.store, self._sampler
        assert sampler is not None
        lengths, counts = [len(one.ids) - 1 for one in samples], [len(draft) + 1 for draft in drafts]
        store.ensure(len(samples), max(length + n for length, n in zip(lengths, counts, strict=True)))
        ragged = RaggedAttention(store, lengths, counts)
        tokens = [token for one, draft in zip(samples, drafts, strict=True) for token in (one.ids[-1], *draft)]
        if adapters is not None:
            adapters.select([one.adapter for one, n in zip(samples, counts, strict=True) for _ in range(n)])
        tokens_N = torch.tensor(tokens, device=self.decoder.device)
        hidden = self.decoder.forward(tokens_N, ragged.places_N, ragged.attend, ragged.longest, adapters)
        self._stale = True
        return sampler.check(self.decoder.logits(hidden), drafts)

    def cells_allowed(self, most_bytes: int, wanted: int) -> int:
        """Cells that a row may use in the next step: so many more than the longest has, where the store may grow."""
        cells = max(len(one.ids) for one in self.samples) + wanted
        fits = self.store.bytes_for(len(self.samples), cells) <= most_bytes
        return cells if fits else self.store.cells

    def bytes_needed(self, more_rows: int = 0, cells: int = 0) -> int:
        """Bytes of a store for these samples and so many more rows, each at least `cells` long and able to go on."""
        longest = max([cells, *(len(one.ids) for one in self.samples)]) + 1
        return self.store.bytes_for(len(self.samples) + more_rows, longest)

    def _lay_out(self) -> None:
        """Lay out the small per-row tensors anew."""
        device, samples = self.decoder.device, self.samples
        lengths = [len(one.ids) - 1 for one in samples]
        self._longest = max(lengths, default=0) + 1
        self.store.ensure(len(samples), self._longest)
        self.store.place(lengths)
        self._tokens_B = torch.tensor([one.ids[-1] for one in samples], dtype=torch.long, device=device)
        self._places_B = torch.tensor(lengths, dtype=torch.long, device=device)
        if self._changed:
            self._sampler = sampler_of(samples, self.decoder)
        self._changed = self._stale = False


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


class KeyValues:
    """The store, (layers, rows, cells, 2 K, D), keys first, then values, and attention of one new token a row over it.
    It grows by doubling, and only when asked."""

    def __init__(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self.cell_bytes = shape.layers * 2 * shape.kv_heads * shape.head_dim * dtype.itemsize
        self.release()

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
        self.data, self._flat = self._new(0, 0), list[Tensor]()
        self._views, self._viewed = list[tuple[Tensor, Tensor]](), (-1, -1)
        self._mask = self._mask_view = torch.empty(0, 0, dtype=self.dtype, device=self.device)
        self.cells_B = torch.empty(0, dtype=torch.long, device=self.device)

    def put(self, first: int, count: int, saved: Tensor) -> None:
        """Write one saved sequence, (layers, length, 2 K, D), to `count` rows from `first` on."""
        self.data[:, first : first + count, : saved.shape[1]] = saved.unsqueeze(1)

    def place(self, lengths: list[int]) -> None:
        """Row i holds `lengths[i]` cells; its next token goes into the one after them."""
        count = len(lengths)
        held = torch.tensor(lengths, device=self.device)
        self.cells_B = torch.arange(count, device=self.device) * self.cells + held
        free = torch.arange(self.cells, device=self.device) >= held.unsqueeze(1)
        self._mask[:count] = torch.zeros(1, dtype=self.dtype, device=self.device).masked_fill(free, float("-inf"))

    def open(self, count: int, longest: int) -> None:
        """Begin a step of `count` rows, the longest with that many cells, the new one included."""
        self._mask.view(-1).index_fill_(0, self.cells_B, 0.0)
        cells = min(-(-longest // CELL_STEP) * CELL_STEP, self.cells)
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
        size = (self.shape.layers, rows, cells, 2 * self.shape.kv_heads, self.shape.head_dim)
        return torch.zeros(size, dtype=self.dtype, device=self.device)


def _grown(wanted: int, least: int) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << max(0, wanted - 1).bit_length()) if wanted else 0


class RaggedAttention:
    """Attention of row i's tokens at places `lengths[i]` to `lengths[i] + counts[i] - 1`."""

    def __init__(self, store: KeyValues, lengths: Sequence[int], counts: Sequence[int]) -> None:
        device = store.device
        self.store, self.rows, self.width = store, len(lengths), max(counts)
        self.longest = max(length + count for length, count in zip(lengths, counts, strict=True))
        self.used = min(-(-self.longest // CELL_STEP) * CELL_STEP, store.cells)
        places, cells, slots = list[int](), list[int](), list[int]()
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
