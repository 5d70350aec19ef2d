"""Logits to tokens, all rows at once.

One uniform number a row picks from the cumulative distribution in vocabulary order, so the pick does not depend on how
other rows are drawn. Truncation is a threshold on the logits: top-k, then top-p (Holtzman et al. 2019,
arXiv:1904.09751), then min-p (arXiv:2407.01082); ties at the threshold stay.

Drafts are checked by drawing: the token of every place is drawn as if all drafted tokens before it were right, with the
number of that place, and a drafted token is right if it is the one drawn. What is kept is then what would have been
drawn without drafts, token by token, from the same seed; only rounding may differ, as between batches of different
size. For a draft that is a point mass this accepts as often as speculative sampling (Leviathan et al. 2023,
arXiv:2211.17192, algorithm 1: min(1, p / q) is p of the drafted token).
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
from reason_engine.engines.embedded.sampling import two_level
from reason_engine.engines.embedded.sampling.penalties import Penalties, penalised
from reason_engine.engines.embedded.sampling.streams import rng_streams, rng_uniforms
from reason_engine.errors import EngineDead
from reason_engine.types import Sampling

WIDE_VOCAB, STEPS_AHEAD = 16384, 32
"""Vocabulary above which sums are kept in double precision and searches have two levels; steps whose random numbers are
worked out at once."""
LISTED = 64
"""Of the largest logits, ordered first where a row is truncated; more where they do not reach."""


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
        self.wide = vocab > WIDE_VOCAB
        self.precise = torch.float64 if self.wide else torch.float32
        self._streams = rng_streams(seeds)
        self._places = np.array([len(i) for i in ids], dtype=np.uint64)
        self._drawn = 0
        self._room: Tensor | None = None
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
        self.penalties = Penalties(samplings, ids, prompts, vocab, device) if any(map(penalised, samplings)) else None
        wanted = [-1 if s.logprobs is None else s.logprobs for s in samplings]
        self.logprobs = max(wanted) if max(wanted) >= 0 else None

    def draw(self, logits_BV: Tensor) -> Drawn:
        """One token a row."""
        raw = logits_BV
        if self._masks or self.bias is not None or self.penalties is not None:
            logits_BV = self._adjust(logits_BV.clone())
        tokens = self._largest(logits_BV) if self.greedy else self._pick(logits_BV)
        drawn = Drawn(tokens, tokens.tolist())
        # Where a logit is NaN a search ends past the vocabulary, and the maximum is NaN.
        best = self.greedy or self.mixed
        if max(drawn.tokens) >= self.vocab or (best and logits_BV.gather(1, tokens[:, None]).isnan().any()):
            raise EngineDead("the model's logits are no numbers: its weights are broken, or overflow in this dtype")
        self._drawn += 1
        if self.penalties is not None:
            self.penalties.add(torch.arange(len(tokens), device=self.device), tokens)
        if self.logprobs is not None:
            drawn.logprobs = _logprobs(raw, self._log_whole(raw), tokens, self.logprobs)
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
        weights, u_B1 = self._weights(logits_BV), next(self._uniforms)
        listed: tuple[Tensor, Tensor] | None = None
        if self.most_k or self.top_p is not None or self.min_p is not None:
            low_B1, ordered_BC, ids_BC = self._threshold(weights)
            if self.wide and bool((ordered_BC[:, -1:] < low_B1).all()):
                listed = ordered_BC.masked_fill(ordered_BC < low_B1, 0.0), ids_BC
            else:
                weights = weights.mul_(weights >= low_B1)
        if listed:
            picked = _pick_listed(*listed, u_B1)
        elif self.wide:
            picked = two_level.pick(weights, u_B1)
        else:
            sums = weights.cumsum(-1, dtype=self.precise)
            picked = torch.searchsorted(sums, u_B1 * sums[:, -1:], right=True).squeeze(1)
        return torch.where(self.greedy_B, self._largest(logits_BV), picked) if self.mixed else picked

    def _weights(self, logits_BV: Tensor) -> Tensor:
        """In proportion to the probabilities at each row's temperature. Where they are many, they stand where those of
        the step before stood: asking the system for so much memory takes as long as filling it."""
        if not self.wide:
            return (logits_BV if self.even else logits_BV * self.inverse_B1).softmax(-1)
        scaled = torch.mul(logits_BV, self.inverse_B1, out=self._room_for(logits_BV))
        return scaled.sub_(scaled.amax(-1, keepdim=True)).exp_()

    def _log_whole(self, logits_BV: Tensor) -> Tensor:
        """The logarithm of Σ exp of the model's own logits, (B, 1)."""
        if not self.wide:
            return logits_BV.logsumexp(-1, keepdim=True)
        most_B1 = logits_BV.amax(-1, keepdim=True)
        weights = torch.sub(logits_BV, most_B1, out=self._room_for(logits_BV)).exp_()
        return most_B1 + weights.sum(-1, keepdim=True).log_()

    def _room_for(self, logits_BV: Tensor) -> Tensor:
        if self._room is None or self._room.shape != logits_BV.shape:
            self._room = torch.empty_like(logits_BV)
        return self._room

    def _largest(self, logits_BV: Tensor) -> Tensor:
        return two_level.largest(logits_BV) if self.wide else logits_BV.argmax(-1)

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

    def _threshold(self, weights_BV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The least weight that each row keeps, (B, 1), and the largest ones in falling order with their tokens,
        (B, C): as many as every row's truncation needs."""
        low, whole = torch.zeros_like(self.inverse_B1), weights_BV.sum(-1, keepdim=True)
        ordered, ids = self._ordered(weights_BV, whole)
        if self.most_k:
            kth = ordered.gather(1, self.top_k_B1.clamp(max=ordered.shape[1]) - 1)
            low = torch.where(self.top_k_B1 < self.vocab, kth, low)
        if self.top_p is not None:
            inside = ordered.masked_fill(ordered < low, 0.0)
            p = inside / torch.where(low > 0, inside.sum(-1, keepdim=True), whole)
            kept = (p.cumsum(-1) - p < self.top_p) & (p > 0)
            nucleus = ordered.masked_fill(~kept, float("inf")).amin(-1, keepdim=True)
            low = torch.where(self.top_p < 1, torch.maximum(low, nucleus), low)
        if self.min_p is not None:
            low = torch.maximum(low, ordered[:, :1] * self.min_p)
        return low, ordered, ids

    def _ordered(self, weights_BV: Tensor, whole_B1: Tensor) -> tuple[Tensor, Tensor]:
        count = min(self.vocab, max(LISTED, self.most_k + 1))
        while count < self.vocab:
            ordered, ids = two_level.top(weights_BV, count)
            if self.top_p is None:
                return ordered, ids
            share = ordered.sum(-1, keepdim=True) / whole_B1
            if bool(((share > self.top_p) | (self.top_p >= 1) | (self.top_k_B1 < count)).all()):
                return ordered, ids
            count *= 8
        found = weights_BV.sort(-1, descending=True)
        return found.values, found.indices

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


def _pick_listed(ordered_BC: Tensor, ids_BC: Tensor, u_B1: Tensor) -> Tensor:
    """From the tokens that are listed, in the order of the vocabulary; past it where a weight is NaN."""
    ids_BC, at_BC = ids_BC.sort(-1)
    sums_BC = ordered_BC.gather(1, at_BC).cumsum(-1, dtype=u_B1.dtype)
    place_B1 = torch.searchsorted(sums_BC, u_B1 * sums_BC[:, -1:], right=True)
    picked_B = ids_BC.gather(1, place_B1.clamp_(max=ids_BC.shape[1] - 1)).squeeze(1)
    return picked_B.where(sums_BC[:, -1].isfinite(), torch.iinfo(ids_BC.dtype).max)


def _logprobs(logits_BV: Tensor, whole_B1: Tensor, tokens_B: Tensor, count: int) -> list[RawLogprob]:
    """Of the model's own distribution, before temperature and truncation."""
    chosen: list[float] = (logits_BV.gather(1, tokens_B.unsqueeze(1)) - whole_B1).squeeze(1).tolist()
    if count == 0:
        return [(value, []) for value in chosen]
    values_BC, ids_BC = two_level.top(logits_BV, count)
    pairs = zip(chosen, ids_BC.tolist(), (values_BC - whole_B1).tolist(), strict=True)
    return [(value, list(zip(ids, values, strict=True))) for value, ids, values in pairs]


def _bias(samplings: Sequence[Sampling], vocab: int, device: torch.device) -> Tensor | None:
    if not any(s.logit_bias for s in samplings):
        return None
    bias = torch.zeros(len(samplings), vocab, device=device)
    for row, sampling in enumerate(samplings):
        for token, value in sampling.logit_bias:
            bias[row, token] += value
    return bias
