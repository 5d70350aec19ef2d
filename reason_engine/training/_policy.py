"""The policy as a trainer sees it: log-probabilities of tokens that were drawn, in micro-batches of similar length.

Rows are padded on the right, where a causal model never looks, so no attention mask is needed. Logits are made at the
places of generated tokens only. Shape suffixes: B rows, T places, N generated tokens of all rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from reason_engine.training._encode import padded
from reason_engine.training._forward import body_of


class Sized(Protocol):
    """What a forward pass costs: `length` is in tokens."""

    @property
    def length(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and what was drawn after it. Place t of a row predicts token t + 1 of prompt and answer together."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class Pad:
    """Rows as tensors: `ids_BT`, and for each place whether it predicts a generated token (`mask_BT`)."""

    ids_BT: Tensor
    mask_BT: Tensor

    @property
    def learned_BT(self) -> Tensor:
        return self.mask_BT > 0


def pad(rows: Sequence[Row]) -> Pad:
    """T is one less than the longest row's length, padded."""
    width = padded(max(row.length for row in rows) - 1)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for at, row in enumerate(rows):
        whole = (*row.prompt, *row.answer)[:-1]
        ids[at, : len(whole)] = torch.tensor(whole)
        mask[at, len(row.prompt) - 1 : len(whole)] = 1
    return Pad(ids, mask)


class Policy:
    """A model at the temperature it is sampled at."""

    def __init__(self, model: Any, temperature: float, precision: str, compiled: bool = False) -> None:
        """Raises SetupError where a model cannot be compiled."""
        self.model, self._temperature, self._precision = model, temperature, precision
        self._body = body_of(model, compiled, precision)

    def logprobs(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Of every generated token in order of the rows, and the entropy at its place: (N), (N)."""
        head = self.model.lm_head
        batch, device = pad(rows), head.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            hidden_BTD = self._body(batch.ids_BT.to(device))
            logits_NV = head(hidden_BTD[batch.learned_BT.to(device)])
        shares_NV = (logits_NV.float() / self._temperature).log_softmax(-1)
        with torch.no_grad():
            entropy_N = -(shares_NV.exp() * shares_NV).sum(-1)
        drawn_N = torch.tensor([token for row in rows for token in row.answer], device=device)
        return shares_NV.gather(1, drawn_N[:, None])[:, 0].cpu(), entropy_N.cpu()

    def measured(self, rows: Sequence[Row], tokens: int) -> list[Tensor]:
        """Log-probabilities without gradient, one tensor a row, in passes of at most `tokens` padded tokens."""
        return in_passes(rows, tokens, lambda group: self.logprobs(group)[0])


def in_passes(rows: Sequence[Row], tokens: int, work: Callable[[Sequence[Row]], Tensor]) -> list[Tensor]:
    """What `work` says of the generated tokens of some rows, without gradient: one tensor a row, in their order."""
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    with torch.no_grad():
        for places in micro(rows, tokens):
            group = [rows[place] for place in places]
            parts = work(group).split([len(row.answer) for row in group])
            for place, part in zip(places, parts, strict=True):
                found[place] = part
    return found


def micro(items: Sequence[Sized], tokens: int) -> list[list[int]]:
    """Numbers of the items in groups of similar length, of at most `tokens` padded tokens (a longer one alone)."""
    groups: list[list[int]] = []
    for place in sorted(range(len(items)), key=lambda i: (-items[i].length, i)):
        if groups and (len(groups[-1]) + 1) * padded(items[groups[-1][0]].length) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
