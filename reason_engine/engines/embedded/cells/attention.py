"""Attention over one part of the cells, with what is needed to put several parts together.

Softmax over a union of cells is a weighted mean of the softmaxes over its parts, with each part's sum of exponentials
as its weight (Milakov and Gimelshein 2018, arXiv:1805.02867). Every part reports the logarithm of that sum. Where
torch's own kernel does not, plain products do; they hold all scores at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attend_part(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of queries (B, K, T, D) over cells (B, K, L, D): the outputs, and in fp32 the logarithms of the sums, (B, K, T).
    The mask is added to the scores."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=mask)
    return attend_plainly(q, k, v, mask)


def attend_plainly(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same by plain products, on any device."""
    scores = torch.matmul(q, k.transpose(2, 3)).float() / math.sqrt(q.shape[3])
    if mask is not None:
        scores += mask
    sums = scores.logsumexp(-1)
    return torch.matmul((scores - sums.unsqueeze(-1)).exp_().to(v.dtype), v), sums
