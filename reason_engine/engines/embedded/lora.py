"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), chosen per row: y += scale * (x A) B.

All adapters of one place are stacked, (adapters, in, rank) and (adapters, rank, out), index 0 being none (zeros), so
that a batch may mix them. q, k and v share one stacked product, as do gate and up: their ranks stand side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor

Place = tuple[int, str]


class Patch:
    """What the loaded adapters add to a pass. `select` names each token's adapter before the pass."""

    def __init__(self, stacked: dict[Place, tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.stacked, self.device = stacked, device
        self._index = torch.empty(0, dtype=torch.long, device=device)
        self._idle = True

    def select(self, adapters_N: list[int]) -> None:
        """Token i of the next pass uses `adapters_N[i]`; 0 is the base model."""
        self._idle = not any(adapters_N)
        self._index = torch.tensor(adapters_N, device=self.device)

    def add(self, layer: int, place: str, x_NI: Tensor, y_NO: Tensor) -> None:
        """Add the low-rank part of this place to `y`, in place."""
        found = self.stacked.get((layer, place))
        if found is None or self._idle:
            return
        down, up = found
        used = torch.unique(self._index)
        for adapter in used.tolist():
            if adapter:
                rows = (self._index == adapter).nonzero()[:, 0]
                low = x_NI.index_select(0, rows).to(down.dtype) @ down[adapter]
                y_NO.index_add_(0, rows, (low @ up[adapter]).to(y_NO.dtype))
