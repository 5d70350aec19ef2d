"""Which weights of a matrix are set to zero, by score: magnitude or Wanda; any, or two of each four.

    magnitude   |W_oi|               the lowest of the matrix
    Wanda       |W_oi| · ‖X_i‖₂      the lowest of each output (Sun et al. 2023, arXiv:2306.11695, eq. 1)

2:4: of four neighbouring inputs of an output the two of the lowest score.
"""

from __future__ import annotations

from typing import Any


def wanda(weight_OI: Any, gram_II: Any) -> Any:
    """|W| · ‖X‖₂, [O, I]."""
    return weight_OI.abs() * gram_II.diagonal().clamp_min(0).sqrt()


def lowest(score_OI: Any, rate: float, by_output: bool) -> Any:
    """True for the weights that go: the share `rate` of each output, or of the whole matrix."""
    import torch

    rows = score_OI if by_output else score_OI.reshape(1, -1)
    count = round(rate * rows.shape[1])
    gone = torch.zeros_like(rows, dtype=torch.bool)
    gone.scatter_(1, rows.argsort(stable=True, dim=1)[:, :count], True)
    return gone.reshape(score_OI.shape)


def two_of_four(score_OI: Any) -> Any:
    """True for the two lowest of each four."""
    fours = score_OI.reshape(score_OI.shape[0], -1, 4)
    return lowest(fours.reshape(-1, 4), 0.5, True).reshape(score_OI.shape)
