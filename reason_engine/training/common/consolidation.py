"""Elastic weight consolidation: weights that matter to what was learned before are held where they were.

    L = L_new + λ/2 Σ_i F_i (θ_i − θ*_i)²         F_i = mean over old rows of (∂ log p(row) / ∂θ_i)²

Kirkpatrick et al. 2017, arXiv:1612.00796, eq. 3. The gradient of each row is squared by itself: in the square of a
batch's mean, rows that pull a weight apart would cancel, and it would count as free. Rows go through one at a time,
their squares added up, which takes one gradient's memory; torch.func's vmap over rows would hold one for each row.
log p(row) is the sum over the row's answer, so a long answer says more than a short one.

The inner factor A of a low-rank product s·B·A (LoRA) has no gradient while B is zero, so its own F would be zero and A
free to move. It is judged by the weight W that the product is added to, G = ∂ log p(row) / ∂W: for a B of independent
entries of variance σ²,

    F_rj = E_B (∂ log p / ∂A_rj)² = s² σ² Σ_i mean over rows of G_ij²         σ² = mean of A_rj², B as large as A

G of one matrix is there at a time.

Departures: F is scaled to mean 1 over the trained weights, so that λ means the same for every model (raw values are
tiny and differ by orders of magnitude); it is taken from the rows' own answers (the empirical Fisher), where the paper
draws from the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reason_engine.errors import SetupError


@dataclass(frozen=True, slots=True)
class Factor:
    """The inner factor [R, J] of a product that is added to a frozen weight [I, J], times `scale`."""

    inner: Any
    frozen: Any
    scale: float


class Consolidation:
    """Holds F and θ* of the trained weights: two more copies of them."""

    def __init__(
        self, trained: Sequence[tuple[str, Any]], strength: float, losses: Iterable[Any], factors: Sequence[Factor] = ()
    ) -> None:
        """`losses`: -log p of one old row each, computed as they are taken. Raises SetupError where they say nothing
        about the weights."""
        self._weights, self._strength = [p for _, p in trained], strength
        self._start = [p.detach().clone() for p in self._weights]
        self._fisher = _importance(self._weights, losses, factors)
        mean = sum(f.sum() for f in self._fisher).item() / sum(f.numel() for f in self._fisher)  # type: ignore[union-attr]
        if not 0 < mean < float("inf"):
            raise SetupError(f"ewc: the old rows give the weights an importance of {mean}; use other rows")
        for fisher in self._fisher:
            fisher /= mean

    def add_gradients(self) -> float:
        """Add λ F (θ − θ*) to the gradients; the penalty itself."""
        penalty = 0.0
        with torch.no_grad():
            for weight, start, fisher in zip(self._weights, self._start, self._fisher, strict=True):
                pull = self._strength * fisher * (weight - start)
                weight.grad = pull if weight.grad is None else weight.grad.add_(pull)
                penalty += 0.5 * (pull * (weight - start)).sum().item()
        return penalty


def _importance(weights: Sequence[Any], losses: Iterable[Any], factors: Sequence[Factor]) -> list[Any]:
    """The sum over rows of each row's squared gradient, of the factors' weights as described above."""
    fisher = [torch.zeros_like(p) for p in weights]
    learned = {id(weight) for weight in weights}
    factors = [factor for factor in factors if id(factor.inner) in learned]
    columns = [torch.zeros(factor.frozen.shape[1], device=factor.frozen.device) for factor in factors]
    hooks = [_summed(factor.frozen, column) for factor, column in zip(factors, columns, strict=True)]
    for weight in weights:
        weight.grad = None
    for loss in losses:
        loss.backward()
        for importance, weight in zip(fisher, weights, strict=True):
            if weight.grad is not None:
                importance += weight.grad.float() ** 2
                weight.grad = None
    for hook, factor in zip(hooks, factors, strict=True):
        hook.remove()
        factor.frozen.requires_grad_(False)
    by_weight = {id(weight): importance for weight, importance in zip(weights, fisher, strict=True)}
    for factor, column in zip(factors, columns, strict=True):
        variance = factor.inner.detach().float().pow(2).mean()
        by_weight[id(factor.inner)] += factor.scale**2 * variance * column
    return fisher


def _summed(frozen: Any, column: Any) -> Any:
    """From now on each gradient of this weight is squared, summed over its outputs into `column`, and dropped."""

    def take(weight: Any) -> None:
        column.add_(weight.grad.float().pow(2).sum(0))
        weight.grad = None

    frozen.requires_grad_(True)
    return frozen.register_post_accumulate_grad_hook(take)
