"""Logits to tokens, all rows at once.

One uniform number a row picks from the cumulative distribution in vocabulary order, so the pick does not depend on how
other rows are drawn. Truncation is a threshold on the logits: top-k, then top-p (Holtzman et al. 2019,
arXiv:1904.09751), then min-p (arXiv:2407.01082); ties at the threshold stay. Penalties are those of the OpenAI and
CTRL conventions.

Drafts are checked by drawing: the token of every place is drawn as if all drafted tokens before it were right, with the
number of that place, and a drafted token is right if it is the one drawn. What is kept is then what would have been
drawn without drafts, token by token, from the same seed; only rounding may differ, as between batches of different
size. For a draft that is a point mass this accepts as often as speculative sampling (Leviathan et al. 2023,
arXiv:2211.17192, algorithm 1: min(1, p / q) is p of the drafted token).

The numbers depend on a sample's seed and a token's place, and on nothing else. They are counter-based (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"): u = mix(mix(seed) + place * golden), with SplitMix64's finaliser
as mix. So a sample draws the same alone, in any batch, and after an interruption.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.errors import EngineDead
from reason_engine.types import Sampling

WIDE_VOCAB, STEPS_AHEAD = 16384, 32
"""Vocabulary above which sums are kept in double precision; steps whose random numbers are worked out at once."""


RawLogprob = tuple[float, list[tuple[int, float]]]


@dataclass(slots=True)
class Drawn:
    """Tokens of one step, with log-probabilities where a row wants them: (sampled, [(token, value)...]) a row."""

    tokens_B: Tensor
    tokens: list[int]
    logprobs: list[RawLogprob] | None = None


@dataclass(frozen=True, slots=True)
class CheckedDraft:
    """What a row gained: `right` drafted tokens, then one of its own."""

    tokens: list[int]
    right: int
    logprobs: list[RawLogprob] | None = None


class Sampler:
    """Draws for a fixed set of rows; built anew when rows join or leave."""

    def __init__(
        self,
        samplings: Sequence[Sampling],
        seeds: list[int],
        ids: Sequence[Sequence[int]],
        prompts: Sequence[int],
        matchers: Sequence[Matcher | None],
        vocab: int,
        device: torch.device,
    ) -> None:
        self.device, self.vocab = device, vocab
        temperatures = [s.temperature for s in samplings]
        self.greedy = all(t <= 0 for t in temperatures)
        self.mixed = not self.greedy and any(t <= 0 for t in temperatures)
        self.precise = torch.float64 if vocab > WIDE_VOCAB else torch.float32
        self._streams = rng_streams(seeds)
        self._places = np.array([len(i) for i in ids], dtype=np.uint64)
        self._drawn = 0
        self._uniforms = self._uniforms_from(self._streams, self._places)
        self._matchers = [(row, m) for row, m in enumerate(matchers) if m is not None]
        self._masks: list[tuple[int, Callable[[], NDArray[np.bool_]]]] = [
            (row, partial(matcher.allowed, vocab)) for row, matcher in self._matchers
        ]
        """Rows under a grammar, and what it allows next, (V)."""
        self.inverse_B1 = self._column([1 / t if t > 0 else 1.0 for t in temperatures])
        self.greedy_B = torch.tensor([t <= 0 for t in temperatures], device=device)
        self.even = len(set(temperatures)) == 1 and temperatures[0] == 1.0
        self.most_k = max((s.top_k for s in samplings if 0 < s.top_k < vocab), default=0)
        self.top_k_B1 = torch.tensor([[s.top_k if 0 < s.top_k < vocab else vocab] for s in samplings], device=device)
        top_p, min_p = [s.top_p for s in samplings], [s.min_p for s in samplings]
        self.top_p = self._column(top_p) if min(top_p) < 1 else None
        self.min_p = self._column(min_p) if max(min_p) > 0 else None
        self.bias = _bias(samplings, vocab, device)
        self.penalties = Penalties(samplings, ids, prompts, vocab, device) if any(map(_penalised, samplings)) else None
        wanted = [-1 if s.logprobs is None else s.logprobs for s in samplings]
        self.logprobs = max(wanted) if max(wanted) >= 0 else None

    def draw(self, logits_BV: Tensor) -> Drawn:
        """One token a row."""
        raw = logits_BV
        if self._masks or self.bias is not None or self.penalties is not None:
            logits_BV = self._adjust(logits_BV.clone())
        tokens = logits_BV.argmax(-1) if self.greedy else self._pick(logits_BV)
        drawn = Drawn(tokens, tokens.tolist())
        # Where a logit is NaN a search ends past the vocabulary, and the maximum is NaN.
        best = self.greedy or self.mixed
        if max(drawn.tokens) >= self.vocab or (best and logits_BV.gather(1, tokens[:, None]).isnan().any()):
            raise EngineDead("the model's logits are no numbers: its weights are broken, or overflow in this dtype")
        self._drawn += 1
        if self.penalties is not None:
            self.penalties.add(torch.arange(len(tokens), device=self.device), tokens)
        if self.logprobs is not None:
            drawn.logprobs = _logprobs(raw, tokens, self.logprobs)
        return drawn

    def check(self, logits_NV: Tensor, drafts: Sequence[list[int]]) -> list[CheckedDraft]:
        """For each row the drafted tokens that are right, and one more. `logits_NV`: row by row, of its last token and
        of each drafted one."""
        drawn = self._spread(drafts).draw(logits_NV)
        made: list[CheckedDraft] = []
        for draft, at in zip(drafts, accumulate((len(d) + 1 for d in drafts), initial=0), strict=False):
            right = next((i for i, t in enumerate(draft) if drawn.tokens[at + i] != t), len(draft))
            raw = None if drawn.logprobs is None else drawn.logprobs[at : at + right + 1]
            made.append(CheckedDraft(drawn.tokens[at : at + right + 1], right, raw))
        self._advance([one.tokens for one in made])
        return made

    def _spread(self, drafts: Sequence[list[int]]) -> Sampler:
        """A sampler of single places: each row's next one, and the one after each of its drafted tokens."""
        counts = [len(draft) + 1 for draft in drafts]
        rows = np.repeat(np.arange(len(drafts)), counts)
        offsets = np.concatenate([np.arange(count) for count in counts])
        at = torch.from_numpy(rows).to(self.device)
        spread = copy.copy(self)
        places = self._places[rows] + np.uint64(self._drawn) + offsets.astype(np.uint64)
        spread._uniforms = self._uniforms_from(self._streams[rows], places, steps=1)
        spread.inverse_B1, spread.greedy_B = self.inverse_B1[at], self.greedy_B[at]
        spread.top_k_B1 = self.top_k_B1[at]
        spread.top_p = None if self.top_p is None else self.top_p[at]
        spread.min_p = None if self.min_p is None else self.min_p[at]
        spread.bias = None if self.bias is None else self.bias[at]
        spread.penalties = None if self.penalties is None else self.penalties.spread(drafts, at)
        starts = list(accumulate(counts, initial=0))
        spread._masks = [
            (starts[row] + offset, partial(np.asarray, mask))
            for row, matcher in self._matchers
            for offset, mask in enumerate(matcher.ahead(drafts[row], self.vocab))
        ]
        return spread

    def _advance(self, tokens: Sequence[list[int]]) -> None:
        """The rows gained so many tokens."""
        gained = np.array([len(one) for one in tokens], dtype=np.uint64)
        self._places, self._drawn = self._places + np.uint64(self._drawn) + gained, 0
        self._uniforms = self._uniforms_from(self._streams, self._places)
        if self.penalties is not None:
            rows = [row for row, new in enumerate(tokens) for _ in new]
            self.penalties.add(*torch.tensor([rows, [t for new in tokens for t in new]], device=self.device))

    def _pick(self, logits_BV: Tensor) -> Tensor:
        scaled = logits_BV if self.even else logits_BV * self.inverse_B1
        if self.most_k or self.top_p is not None or self.min_p is not None:
            scaled = scaled.masked_fill(scaled < self._threshold(scaled), float("-inf"))
        sums = scaled.softmax(-1).cumsum(-1, dtype=self.precise)
        picked = torch.searchsorted(sums, next(self._uniforms) * sums[:, -1:], right=True).squeeze(1)
        return torch.where(self.greedy_B, logits_BV.argmax(-1), picked) if self.mixed else picked

    def _uniforms_from(
        self, streams: NDArray[np.uint64], places: NDArray[np.uint64], steps: int = STEPS_AHEAD
    ) -> Iterator[Tensor]:
        """Each row's number for this step, the next, and so on, (B, 1); below 1 by enough that u * total < total."""
        below = 1 - torch.finfo(self.precise).eps
        while True:
            ahead = np.arange(steps, dtype=np.uint64)[:, None]
            table = torch.from_numpy(rng_uniforms(streams, places + ahead)).to(self.precise)
            yield from table.clamp_(max=below).to(self.device).unsqueeze(2)
            places = places + np.uint64(steps)

    def _threshold(self, scaled_BV: Tensor) -> Tensor:
        """The least logit that each row keeps, (B, 1)."""
        low = torch.full_like(self.inverse_B1, float("-inf"))
        if self.most_k or self.top_p is not None:
            ordered = self._ordered(scaled_BV)
            if self.most_k:
                kth = ordered.gather(1, self.top_k_B1.clamp(max=ordered.shape[1]) - 1)
                low = torch.where(self.top_k_B1 < self.vocab, kth, low)
            if self.top_p is not None:
                inside = ordered.masked_fill(ordered < low, float("-inf"))
                base = torch.where(
                    low > float("-inf"), inside.logsumexp(-1, keepdim=True), scaled_BV.logsumexp(-1, keepdim=True)
                )
                p = (inside - base).exp()
                kept = (p.cumsum(-1) - p < self.top_p) & (p > 0)
                nucleus = ordered.masked_fill(~kept, float("inf")).amin(-1, keepdim=True)
                low = torch.where(self.top_p < 1, torch.maximum(low, nucleus), low)
        if self.min_p is not None:
            low = torch.maximum(low, scaled_BV.amax(-1, keepdim=True) + self.min_p.log())
        return low

    def _ordered(self, scaled_BV: Tensor) -> Tensor:
        """The largest logits in falling order: as many as every row's truncation needs."""
        count = min(self.vocab, max(64, self.most_k))
        while count < self.vocab:
            ordered = scaled_BV.topk(count).values
            if self.top_p is None:
                return ordered
            mass = (ordered.logsumexp(-1, keepdim=True) - scaled_BV.logsumexp(-1, keepdim=True)).exp()
            if bool(((mass > self.top_p) | (self.top_p >= 1)).all()):
                return ordered
            count *= 8
        return scaled_BV.sort(-1, descending=True).values

    def _adjust(self, logits_BV: Tensor) -> Tensor:
        if self.penalties is not None:
            self.penalties.apply(logits_BV)
        if self.bias is not None:
            logits_BV += self.bias
        for row, mask in self._masks:
            logits_BV[row].masked_fill_(~torch.from_numpy(mask()).to(self.device), float("-inf"))
        return logits_BV

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).unsqueeze(1)


class Penalties:
    """Presence, frequency (over what was generated) and repetition (over the prompt too)."""

    def __init__(
        self,
        samplings: Sequence[Sampling],
        ids: Sequence[Sequence[int]],
        prompts: Sequence[int],
        vocab: int,
        device: torch.device,
    ) -> None:
        column = [[s.presence_penalty, s.frequency_penalty, s.repetition_penalty] for s in samplings]
        self.presence, self.frequency, self.repetition = torch.tensor(column, device=device).unsqueeze(2).unbind(1)
        self.counts_BV = torch.zeros(len(ids), vocab, device=device)
        self.seen_BV = torch.zeros(len(ids), vocab, dtype=torch.bool, device=device)
        for row, (all_ids, prompt) in enumerate(zip(ids, prompts, strict=True)):
            if _penalised(samplings[row]):
                made = torch.tensor(list(all_ids[prompt:]), dtype=torch.long, device=device)
                self.counts_BV[row].index_add_(0, made, torch.ones_like(made, dtype=torch.float32))
                self.seen_BV[row, torch.tensor(list(all_ids), device=device)] = True

    def apply(self, logits_BV: Tensor) -> None:
        """In place."""
        scaled = torch.where(logits_BV > 0, logits_BV / self.repetition, logits_BV * self.repetition)
        logits_BV.copy_(torch.where(self.seen_BV, scaled, logits_BV))
        logits_BV -= self.frequency * self.counts_BV + self.presence * (self.counts_BV > 0)

    def add(self, rows_N: Tensor, tokens_N: Tensor) -> None:
        """Note new tokens of these rows; a row may have several."""
        ones = torch.ones_like(tokens_N, dtype=torch.float32)
        self.counts_BV.index_put_((rows_N, tokens_N), ones, accumulate=True)
        self.seen_BV[rows_N, tokens_N] = True

    def spread(self, drafts: Sequence[list[int]], rows_N: Tensor) -> Penalties:
        """Of single places, as `Sampler._spread`: what is drafted before a place counts there."""
        spread = copy.copy(self)
        spread.presence, spread.frequency = self.presence[rows_N], self.frequency[rows_N]
        spread.repetition = self.repetition[rows_N]
        spread.counts_BV, spread.seen_BV = self.counts_BV[rows_N], self.seen_BV[rows_N]
        places: list[int] = []
        tokens: list[int] = []
        start = 0
        for draft in drafts:
            for offset in range(1, len(draft) + 1):
                places += [start + offset] * offset
                tokens += draft[:offset]
            start += len(draft) + 1
        spread.add(*torch.tensor([places, tokens], dtype=torch.long, device=rows_N.device))
        return spread


def _logprobs(logits_BV: Tensor, tokens_B: Tensor, count: int) -> list[RawLogprob]:
    """Of the model's own distribution, before temperature and truncation."""
    logp = logits_BV.log_softmax(-1)
    chosen: list[float] = logp.gather(1, tokens_B.unsqueeze(1)).squeeze(1).tolist()
    if count == 0:
        return [(value, []) for value in chosen]
    top = logp.topk(count)
    pairs = zip(chosen, top.indices.tolist(), top.values.tolist(), strict=True)
    return [(value, list(zip(ids, values, strict=True))) for value, ids, values in pairs]


def _penalised(s: Sampling) -> bool:
    return bool(s.presence_penalty or s.frequency_penalty or s.repetition_penalty != 1.0)


def _bias(samplings: Sequence[Sampling], vocab: int, device: torch.device) -> Tensor | None:
    if not any(s.logit_bias for s in samplings):
        return None
    bias = torch.zeros(len(samplings), vocab, device=device)
    for row, sampling in enumerate(samplings):
        for token, value in sampling.logit_bias:
            bias[row, token] += value
    return bias


GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = (np.uint64(n) for n in (30, 27, 31, 11))


def rng_streams(seeds: list[int]) -> NDArray[np.uint64]:
    """One stream a seed; any integer is a seed."""
    return _mix(np.array([seed % 2**64 for seed in seeds], dtype=np.uint64) + GOLDEN)


def rng_uniforms(streams_B: NDArray[np.uint64], places_B: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The number in [0, 1) of each stream at each place."""
    return (_mix(streams_B + places_B * GOLDEN) >> _11).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)
