"""Muon (Jordan et al. 2024) in single precision.

torch's own turns every gradient into bf16 for its Newton-Schulz iterations, whatever the run's precision. Where a CPU
has no bf16 instructions those products took most of a step of a model of 3M parameters (1.5 s for three matrices,
0.07 s in fp32). Everything else is torch's.
"""

from __future__ import annotations

import math
from typing import Any

import torch


class Muon32(torch.optim.Muon):
    """`torch.optim.Muon` with its iterations in the gradients' own precision."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the loss of the closure, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
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
        found_MN = torch.addmm(
            found_MN, torch.addmm(gram_MM, gram_MM, gram_MM, beta=b, alpha=c), found_MN, beta=a
        )
    return found_MN.T if turned else found_MN
