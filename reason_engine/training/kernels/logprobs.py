"""Log-probabilities of tokens by their states, over the vocabulary in chunks: the whole logits never exist.

    log p_n = z_n[y_n] - log Σ_v exp z_n[v],    z = W h / T          ∂ log p_n / ∂h_n = (W[y_n] - Σ_v p_n[v] W[v]) / T

Logits of 8,192 tokens over a vocabulary of 150,000 are 5 GB in fp32, and a loss over them keeps several copies. Here a
chunk of rows is worked out at a time. Where the output matrix is frozen (an adapter is trained) the derivative is taken
in the same pass, for the product of one row's gradient with it is all that the backward pass needs; where it learns,
the backward pass makes each chunk's logits once more. After the idea of Liger's fused linear cross entropy (Hsu et al.
2024, arXiv:2410.10989, section 3.2), which takes the derivative of a mean loss; this one takes that of each token.

Shape suffixes: N tokens, C those of a chunk, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CHUNK = 2**24
"""Logits that exist at a time."""


def token_logprobs(
    head: Any, states_ND: Tensor, targets_N: Tensor, precision: str, temperature: float = 1.0, *, entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Of each target, and the entropy at its place (no gradient goes through it; zeros unless asked for): (N), (N)."""
    if type(head) is nn.Linear:
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        return _LogProbs.apply(states_ND, head.weight, head.bias, targets_N, temperature, kind, entropy)  # type: ignore[no-any-return]
    parts = [
        _of_module(head, states_ND[at], targets_N[at], precision, temperature)
        for at in chunks(len(targets_N), head.weight.shape[0])
    ]
    logprobs, entropies = zip(*parts, strict=True) if parts else ((states_ND.new_zeros(0),),) * 2
    return torch.cat(logprobs), torch.cat(entropies)


def chunks(count: int, vocabulary: int) -> Iterator[slice]:
    """Slices of so many rows that each has at most CHUNK logits."""
    each = max(16, CHUNK // vocabulary)
    return (slice(at, at + each) for at in range(0, count, each))


def head_logits(head: Any, states_ND: Tensor, precision: str) -> Tensor:
    """In fp32, [N, V]: for chunks."""
    with torch.autocast(states_ND.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return head(states_ND).float()


def _of_module(
    head: Any, states_CD: Tensor, targets_C: Tensor, precision: str, temperature: float
) -> tuple[Tensor, Tensor]:
    """By a head that is more than a matrix, such as one with an adapter."""

    def work(states_CD: Tensor) -> tuple[Tensor, Tensor]:
        shares_CV = (head_logits(head, states_CD, precision) / temperature).log_softmax(-1)
        with torch.no_grad():
            entropy_C = -(shares_CV.exp() * shares_CV).sum(-1)
        return shares_CV.gather(1, targets_C[:, None])[:, 0], entropy_C

    return checkpoint(work, states_CD, use_reentrant=False)  # type: ignore[no-any-return]


class _LogProbs(torch.autograd.Function):
    """Of a linear head."""

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        kind: torch.dtype,
        entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        learns = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ahead = ctx.needs_input_grad[0] and not learns
        matrix_VD, found_N = weight_VD.to(kind), targets_N.new_zeros(len(targets_N), dtype=torch.float32)
        entropy_N = torch.zeros_like(found_N)
        slopes_ND = torch.empty_like(states_ND, dtype=torch.float32) if ahead else None
        for at in chunks(len(targets_N), len(weight_VD)):
            shares_CV = _log_shares(states_ND[at].to(kind), matrix_VD, bias_V, temperature)
            found_N[at] = shares_CV.gather(1, targets_N[at][:, None])[:, 0]
            if not (entropy or ahead):
                continue
            chances_CV = shares_CV.exp()
            if entropy:
                entropy_N[at] = -torch.bmm(chances_CV[:, None], shares_CV[..., None])[:, 0, 0]
            if slopes_ND is not None:
                mean_CD = (chances_CV.to(kind) @ matrix_VD).float()
                slopes_ND[at] = (weight_VD[targets_N[at]].float() - mean_CD) / temperature
        ctx.temperature, ctx.kind = temperature, kind
        if ahead:
            ctx.save_for_backward(slopes_ND)
        else:
            ctx.save_for_backward(states_ND, weight_VD, bias_V, targets_N)
        ctx.ahead, ctx.states_kind = ahead, states_ND.dtype
        ctx.mark_non_differentiable(entropy_N)
        return found_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_N = grads[0]
        if ctx.ahead:
            (slopes_ND,) = ctx.saved_tensors
            return (grad_N[:, None] * slopes_ND).to(ctx.states_kind), *[None] * 6
        states_ND, weight_VD, bias_V, targets_N = ctx.saved_tensors
        kind, temperature = ctx.kind, ctx.temperature
        matrix_VD = weight_VD.to(kind)
        back_ND = torch.empty_like(states_ND) if ctx.needs_input_grad[0] else None
        back_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        back_V = torch.zeros_like(bias_V, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        for at in chunks(len(targets_N), len(weight_VD)):
            states_CD, scaled_C1 = states_ND[at].to(kind), grad_N[at, None] / temperature
            back_CV = _log_shares(states_CD, matrix_VD, bias_V, temperature).exp_().mul_(-scaled_C1)
            back_CV.scatter_add_(1, targets_N[at][:, None], scaled_C1)
            if back_V is not None:
                back_V += back_CV.sum(0)
            back_CV = back_CV.to(kind)
            if back_ND is not None:
                back_ND[at] = back_CV @ matrix_VD
            if back_VD is not None:
                back_VD += (back_CV.T @ states_CD).float()
        wanted = [None if one is None else one.to(weight_VD.dtype) for one in (back_VD, back_V)]
        return back_ND, *wanted, *[None] * 4


def _log_shares(states_CD: Tensor, matrix_VD: Tensor, bias_V: Tensor | None, temperature: float) -> Tensor:
    """Log-probabilities of every token at a chunk's places, in fp32, [C, V]."""
    logits_CV = (states_CD @ matrix_VD.T).float()
    if bias_V is not None:
        logits_CV += bias_V
    if temperature != 1:
        logits_CV /= temperature
    return logits_CV.sub_(logits_CV.logsumexp(-1, keepdim=True))
