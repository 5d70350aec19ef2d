"""Which weights learn, and by what: Muon or AdamW.

Muon: momentum orthogonalised by Newton-Schulz iterations (Jordan et al. 2024). torch's own turns every gradient into
bf16 for them, whatever the run's precision. Where a CPU has no bf16 instructions those products took most of a step of
a model of 3M parameters (1.5 s for three matrices, 0.07 s in fp32). Everything else of `Muon32` is torch's.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn, optim

from reason_engine.errors import SetupError
from reason_engine.training.common.recipe import Supervised

Named = list[tuple[str, Any]]


def freeze(model: Any, patterns: tuple[str, ...]) -> Named:
    """Switch off the parameters whose names match; the named ones still trained. Raises SetupError on no match."""
    for pattern in patterns:
        if not any(re.search(pattern, name) for name, _ in model.named_parameters()):
            raise SetupError(f"freeze: no parameter matches {pattern!r}")
    for name, parameter in model.named_parameters():
        if any(re.search(pattern, name) for pattern in patterns):
            parameter.requires_grad_(False)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not trained:
        raise SetupError("freeze: no parameter is left to train")
    return trained


def make_optimisers(config: Supervised, trained: Named) -> list[Any]:
    """Muon on the layers' matrices and AdamW on the rest, in this order; one that would be empty gets a dummy.

    `optimiser: adamw` is AdamW on everything, with its decay on matrices only.
    """

    def is_matrix(name: str, parameter: Any) -> bool:
        return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name

    matrices = [p for name, p in trained if is_matrix(name, p)] or [nn.Parameter(torch.zeros(1, 1))]
    others = [p for name, p in trained if not is_matrix(name, p)] or [nn.Parameter(torch.zeros(1))]
    rest = optim.AdamW(others, lr=config.adamw_rate, betas=(0.9, 0.95), weight_decay=0.0)
    if config.optimiser == "adamw":
        decay = config.weight_decay
        return [optim.AdamW(matrices, lr=config.adamw_rate, betas=(0.9, 0.95), weight_decay=decay), rest]
    kind = Muon32 if config.precision == "fp32" else optim.Muon
    return [kind(matrices, lr=config.muon_rate, weight_decay=config.weight_decay, momentum=0.95), rest]


def set_rates(config: Supervised, optimisers: list[Any], share: float) -> None:
    """The full rates times `share`."""
    first = config.muon_rate if config.optimiser == "muon" else config.adamw_rate
    for optimiser, full in zip(optimisers, (first, config.adamw_rate), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = full * share


class Muon32(optim.Muon):
    """`torch.optim.Muon` with its iterations in the gradients' own precision."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the loss of the closure, where there is one."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        kept, momentum = state["momentum_buffer"], group["momentum"]
        kept.lerp_(gradient, 1 - momentum)
        update = orthogonal(gradient.lerp(kept, momentum), group["ns_coefficients"], group["ns_steps"])
        rows, columns = weight.shape
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(update, alpha=-group["lr"] * math.sqrt(max(1, rows / columns)))


def orthogonal(matrix_MN: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """About U Vᵀ of a matrix U S Vᵀ: X ← aX + (bA + cA²)X with A = XXᵀ, from X = M / ‖M‖."""
    a, b, c = coefficients
    turned = matrix_MN.shape[0] > matrix_MN.shape[1]
    found_MN = matrix_MN.T if turned else matrix_MN
    found_MN = found_MN / found_MN.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram_MM = found_MN @ found_MN.T
        found_MN = torch.addmm(found_MN, torch.addmm(gram_MM, gram_MM, gram_MM, beta=b, alpha=c), found_MN, beta=a)
    return found_MN.T if turned else found_MN
