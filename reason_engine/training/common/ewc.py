"""Elastic weight consolidation: weights that matter to what was learned before are held where they were.

    L = L_new + λ/2 Σ_i F_i (θ_i − θ*_i)²         F_i = mean over old rows of (∂ log p(row) / ∂θ_i)²

Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3. Departures: F is scaled to mean 1 over the trained weights, so that λ
means the same for every model (raw values are tiny and differ by orders of magnitude); it is taken a row at a time from
the rows' own answers (the empirical Fisher), where the paper draws from the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.training.common.optimisers import Named


class Consolidation:
    """Holds F and θ* of the trained weights: two more copies of them."""

    def __init__(self, trained: Named, strength: float, losses: Iterable[Callable[[], Any]]) -> None:
        """`losses`: -log p of one old row each. Raises SetupError where they say nothing about the weights."""
        import torch

        self._weights, self._strength = [p for _, p in trained], strength
        self._start = [p.detach().clone() for p in self._weights]
        self._fisher = [torch.zeros_like(p) for p in self._weights]
        for loss in losses:
            found = torch.autograd.grad(loss(), self._weights, allow_unused=True)
            for fisher, gradient in zip(self._fisher, found, strict=True):
                if gradient is not None:
                    fisher += gradient.float() ** 2
        mean = sum(f.sum() for f in self._fisher).item() / sum(f.numel() for f in self._fisher)  # type: ignore[union-attr]
        if not 0 < mean < float("inf"):
            raise SetupError(f"ewc: the old rows give the weights an importance of {mean}; use other rows")
        for fisher in self._fisher:
            fisher /= mean

    def add_gradients(self) -> float:
        """Add λ F (θ − θ*) to the gradients; the penalty itself."""
        import torch

        penalty = 0.0
        with torch.no_grad():
            for weight, start, fisher in zip(self._weights, self._start, self._fisher, strict=True):
                pull = self._strength * fisher * (weight - start)
                weight.grad = pull if weight.grad is None else weight.grad.add_(pull)
                penalty += 0.5 * (pull * (weight - start)).sum().item()
        return penalty
