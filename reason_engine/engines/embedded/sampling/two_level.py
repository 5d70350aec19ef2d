"""Searches over a large vocabulary in two levels: over blocks of it first, then inside the block that was found.

A pass over all logits of a row may only be a plain reduction, which runs at the speed of memory; what has to go through
numbers one after another (a running sum in double precision, the place of a maximum, an order) sees a number a block,
then one block. Results are those of the plain searches, ties by the lower token; a running sum differs by rounding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128
"""Tokens of a block."""


def largest(x_BV: Tensor) -> Tensor:
    """The first place of each row's largest number, (B); of a row with a NaN its place."""
    blocks_BNK = _blocks(x_BV, float("-inf"))
    block_B1 = blocks_BNK.amax(-1).argmax(-1, keepdim=True)
    return block_B1.squeeze(1) * BLOCK + _inside(blocks_BNK, block_B1).argmax(-1)


def top(x_BV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest numbers of each row in falling order, and their places, (B, count).

    They lie within the `count` blocks with the largest maxima.
    """
    blocks_BNK = _blocks(x_BV, float("-inf"))
    if 2 * count >= blocks_BNK.shape[1]:
        found = x_BV.topk(count)
        return found.values, found.indices
    at_BC = blocks_BNK.amax(-1).topk(count).indices
    inside_BM = _inside(blocks_BNK, at_BC)
    found = inside_BM.topk(count)
    block = at_BC.gather(1, found.indices // BLOCK)
    return found.values, (block * BLOCK + found.indices % BLOCK).clamp_(max=x_BV.shape[1] - 1)


def pick(weights_BV: Tensor, u_B1: Tensor) -> Tensor:
    """The token at which the running sum of the weights first exceeds u times their whole, (B); V for a row that has
    no such place, since a weight is NaN. `u_B1` in double precision, in [0, 1)."""
    blocks_BNK = _blocks(weights_BV, 0.0)
    upto_BN = blocks_BNK.sum(-1).double().cumsum(-1)
    wanted_B1 = u_B1 * upto_BN[:, -1:]
    block_B1 = torch.searchsorted(upto_BN, wanted_B1, right=True).clamp_(max=upto_BN.shape[1] - 1)
    end_B1 = upto_BN.gather(1, block_B1)
    start_B1 = F.pad(upto_BN, (1, 0)).gather(1, block_B1)
    sums_BK = _inside(blocks_BNK, block_B1).cumsum(-1, dtype=torch.float64)
    # The block's own sum differs from `end - start` by rounding: the same share of it is taken.
    share_B1 = ((wanted_B1 - start_B1) / (end_B1 - start_B1)).clamp_(max=1 - torch.finfo(torch.float64).eps)
    within_B1 = torch.searchsorted(sums_BK, share_B1 * sums_BK[:, -1:], right=True)
    found_B = (block_B1 * BLOCK + within_B1).squeeze(1)
    return found_B.where(upto_BN[:, -1].isfinite(), weights_BV.shape[1])


def _blocks(x_BV: Tensor, filling: float) -> Tensor:
    """(B, N, BLOCK): a view where the blocks come out even."""
    short = -x_BV.shape[1] % BLOCK
    return (F.pad(x_BV, (0, short), value=filling) if short else x_BV).unflatten(1, (-1, BLOCK))


def _inside(blocks_BNK: Tensor, at_BC: Tensor) -> Tensor:
    """The numbers of C blocks a row, side by side, (B, C * BLOCK)."""
    return blocks_BNK.gather(1, at_BC.unsqueeze(-1).expand(-1, -1, BLOCK)).flatten(1)
