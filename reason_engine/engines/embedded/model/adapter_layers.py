"""What the loaded adapters add to a pass, chosen per row, so that a batch may mix them with the base model.

    lora        y += scale * (x A) B                     at a matrix        Hu et al. 2021, arXiv:2106.09685
    learned     rows of a table of their own             as embeddings      Lester et al. 2021, arXiv:2104.08691
    bottleneck  h <- h + U gelu(D h + d) + u             after a sublayer   Houlsby et al. 2019, arXiv:1902.00751

An adapter is a slot, 0 the base model. LoRA matrices of one place are stacked, (slots, in, rank) and (slots, rank,
out), zeros where a slot has none; q, k and v share one stacked product, as do gate and up: their ranks stand side by
side. A learned embedding i is the token `vocabulary + i` of its slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

Place = tuple[int, str]
"""(layer, one of qkv, out, gate_up, down) of a matrix, or (layer, one of out, down) of a sublayer that ends there."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """(hidden, width), (width), (width, hidden), (hidden)."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __call__(self, h_NH: Tensor) -> Tensor:
        return h_NH + torch.addmm(self.up_bias, F.gelu(torch.addmm(self.down_bias, h_NH, self.down)), self.up)


@dataclass(frozen=True, slots=True)
class Parts:
    """One adapter. Pairs are (in, rank) and (rank, out), scale included; `learned` is (tokens, hidden)."""

    pairs: Mapping[Place, Pair] = field(default_factory=dict[Place, Pair])
    bottlenecks: Mapping[Place, Bottleneck] = field(default_factory=dict[Place, Bottleneck])
    learned: Tensor | None = None


class Patch:
    """All loaded adapters by slot. `select` names each token's before a pass."""

    def __init__(self, slots: Mapping[int, Parts], device: torch.device) -> None:
        self.device = device
        self._stacked = {
            place: _stack(slots, place) for place in {place for one in slots.values() for place in one.pairs}
        }
        self._bottlenecks = {slot: one.bottlenecks for slot, one in slots.items() if one.bottlenecks}
        tables = {slot: one.learned for slot, one in slots.items() if one.learned is not None}
        self._table = torch.cat(list(tables.values())) if tables else None
        starts, at = [0] * (max(slots) + 1), 0
        for slot, table in tables.items():
            starts[slot], at = at, at + table.shape[0]
        self._starts = torch.tensor(starts, device=device)
        self._chosen: list[int] = []
        self._index = torch.empty(0, dtype=torch.long, device=device)
        self._rows: dict[int, Tensor] = {}
        self.wraps = False
        """Whether a token of the next pass has bottlenecks."""

    def select(self, adapters_N: list[int]) -> None:
        """Token i of the next pass uses `adapters_N[i]`."""
        if adapters_N == self._chosen:
            return
        self._chosen = list(adapters_N)
        self._index = torch.tensor(adapters_N, device=self.device)
        self._rows = {
            slot: torch.tensor([i for i, one in enumerate(adapters_N) if one == slot], device=self.device)
            for slot in sorted(set(adapters_N) - {0})
        }
        self.wraps = any(slot in self._bottlenecks for slot in self._rows)

    def embed(self, embedding_VH: Tensor, tokens_N: Tensor) -> Tensor:
        """The tokens' embeddings, (N, H), learned ones among them."""
        if self._table is None or not self._rows:
            return embedding_VH.index_select(0, tokens_N)
        vocabulary = embedding_VH.shape[0]
        own_N = tokens_N >= vocabulary
        x_NH = embedding_VH.index_select(0, tokens_N.masked_fill(own_N, 0))
        places_N = (self._starts[self._index] + tokens_N - vocabulary).masked_fill(~own_N, 0)
        return torch.where(own_N.unsqueeze(1), self._table.index_select(0, places_N), x_NH)

    def add(self, layer: int, place: str, x_NI: Tensor, y_NO: Tensor) -> None:
        """Add the low-rank part of this matrix to `y`, in place."""
        found = self._stacked.get((layer, place))
        if found is None:
            return
        down, up = found
        for slot, rows in self._rows.items():
            low = x_NI.index_select(0, rows).to(down.dtype) @ down[slot]
            y_NO.index_add_(0, rows, (low @ up[slot]).to(y_NO.dtype))

    def wrap(self, layer: int, place: str, h_NH: Tensor) -> None:
        """Put the output of the sublayer that ends in this matrix through the bottlenecks, in place."""
        for slot, rows in self._rows.items():
            if (found := self._bottlenecks.get(slot, {}).get((layer, place))) is not None:
                h_NH.index_copy_(0, rows, found(h_NH.index_select(0, rows)))


def _stack(slots: Mapping[int, Parts], place: Place) -> Pair:
    pairs = {slot: one.pairs[place] for slot, one in slots.items() if place in one.pairs}
    like_a, like_b = next(iter(pairs.values()))
    rank = max(a.shape[1] for a, _ in pairs.values())
    down = like_a.new_zeros(max(slots) + 1, like_a.shape[0], rank)
    up = like_b.new_zeros(max(slots) + 1, rank, like_b.shape[1])
    for slot, (a, b) in pairs.items():
        down[slot, :, : a.shape[1]] = a
        up[slot, : b.shape[0]] = b
    return down, up
