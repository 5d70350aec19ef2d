"""Unstructured pruning: single weights are set to zero, by magnitude, Wanda or SparseGPT; any, or two of each four.

    magnitude   |W_oi|               the lowest of the matrix
    Wanda       |W_oi| · ‖X_i‖₂      the lowest of each output (Sun et al. 2023, arXiv:2306.11695, eq. 1)

2:4: of four neighbouring inputs of an output the two of the lowest score.

SparseGPT (Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1): weights that stay make up for those that go. Columns
are worked off from left to right; where w_j goes, its error spreads over the columns behind it by the inverse Hessian
of the layer's squared output error, H = XᵀX + λI:

    ε = (w_j − ŵ_j) / U_jj,   w_{j+1…} −= ε U_{j,j+1…},   H⁻¹ = UᵀU

What goes is chosen for a block of columns at a time by w² / U_jj², or, for 2:4, two of each four.
"""

from __future__ import annotations

from typing import Any

from reason_engine.compression.layerwise import LayerwiseRun
from reason_engine.compression.matrices import MATRICES
from reason_engine.progress import OnProgress

BLOCK = 128
DAMPING = 0.01
"""λ as a share of the mean of H's diagonal."""


def zero_weights(
    model: Any, run: LayerwiseRun | None, by: str, rate: float, fours: bool, tell: OnProgress
) -> dict[str, Any]:
    """Set single weights to zero in place, in each layer behind the ones that are pruned already; True where one is
    zero now, by name. Without a run by magnitude."""
    layers = model.model.layers
    zeros: dict[str, Any] = {}
    for index, layer in enumerate(layers):
        tell({"stage": "prune", "done": index, "total": len(layers)})
        seen = {} if run is None else run.squares(layer, MATRICES) if by == "wanda" else run.grams(layer, MATRICES)
        for name in MATRICES:
            linear = layer.get_submodule(name)
            weight_OI = linear.weight.data
            if by == "sparsegpt":
                linear.weight.data = sparsegpt(weight_OI, seen[name], rate, fours)
            else:
                score_OI = weight_OI.abs() if run is None else wanda(weight_OI, seen[name])
                gone_OI = two_of_four(score_OI) if fours else lowest(score_OI, rate, by_output=run is not None)
                linear.weight.data = weight_OI.masked_fill(gone_OI, 0.0)
            zeros[f"model.layers.{index}.{name}.weight"] = linear.weight.data == 0
        if run:
            run.advance(layer)
    tell({"stage": "prune", "done": len(layers), "total": len(layers)})
    return zeros


def wanda(weight_OI: Any, squares_I: Any) -> Any:
    """|W| · ‖X‖₂, [O, I]."""
    return weight_OI.abs() * squares_I.sqrt()


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


def sparsegpt(weight_OI: Any, gram_II: Any, rate: float, fours: bool) -> Any:
    """The pruned and updated matrix, [O, I]."""
    import torch

    weight_OI, upper_II = weight_OI.clone(), inverse_root(gram_II)
    dead_I = gram_II.diagonal() == 0
    weight_OI[:, dead_I] = 0
    width = weight_OI.shape[1]
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        block_OB, root_BB = weight_OI[:, start:stop], upper_II[start:stop, start:stop]
        errors_OB = torch.zeros_like(block_OB)
        if not fours:
            gone_OB = lowest((block_OB / root_BB.diagonal()) ** 2, rate, False)
        else:
            gone_OB = torch.zeros_like(block_OB, dtype=torch.bool)
        for j in range(stop - start):
            if fours and j % 4 == 0:
                four = slice(j, j + 4)
                gone_OB[:, four] = two_of_four((block_OB[:, four] / root_BB.diagonal()[four]) ** 2)
            kept_O = block_OB[:, j].masked_fill(gone_OB[:, j], 0.0)
            errors_OB[:, j] = (block_OB[:, j] - kept_O) / root_BB[j, j]
            block_OB[:, j] = kept_O
            block_OB[:, j + 1 :] -= errors_OB[:, j, None] * root_BB[None, j, j + 1 :]
        weight_OI[:, stop:] -= errors_OB @ upper_II[start:stop, stop:]
    return weight_OI


def inverse_root(gram_II: Any) -> Any:
    """U, upper triangular, with H⁻¹ = UᵀU."""
    import torch

    damped_II = gram_II.double()
    diagonal_I = damped_II.diagonal().clone()
    diagonal_I[diagonal_I == 0] = 1.0
    damped_II = damped_II - damped_II.diagonal().diag() + (diagonal_I + DAMPING * diagonal_I.mean()).diag()
    inverse_II = torch.cholesky_inverse(torch.linalg.cholesky(damped_II))
    return torch.linalg.cholesky(inverse_II, upper=True).to(gram_II.dtype)
