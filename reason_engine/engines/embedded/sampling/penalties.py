"""Penalties on tokens that a row already holds: those of the OpenAI convention (presence, frequency; over what was
generated) and of CTRL (Keskar et al. 2019, arXiv:1909.05858, section 4.1: repetition; over the prompt too)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from reason_engine.types import Sampling


def penalised(s: Sampling) -> bool:
    """Whether these penalties change anything."""
    return bool(s.presence_penalty or s.frequency_penalty or s.repetition_penalty != 1.0)


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
            if penalised(samplings[row]):
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
