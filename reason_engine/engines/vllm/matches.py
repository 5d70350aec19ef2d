"""The longest match of many texts on the device that holds them, in a few operations and without waiting for it.

As the suffix automaton does (SAM-Decoding, arXiv:2411.10666, section 3), it finds where the end of a text stands
elsewhere, in itself or in others, and drafts what followed there. Departures: ends of at most REACH tokens are
compared; of two places that agree as far the one that also agrees before its first difference is taken, then the text's
own, then the latest; a draft that reaches the end of what it copies goes on from the beginning of the copied part.
"""

from __future__ import annotations

from typing import Any

REACH = 8
"""Tokens of the end of a text that are compared, at most 8: their agreement is one byte."""
SHORTEST = 2
"""A shorter match drafts nothing."""


def continuations(texts_RL: Any, lengths_R: Any, rows_BS: Any, width: int, most: int) -> tuple[Any, Any]:
    """(drafts_BK, whether there is one_B) for the texts `rows_BS[:, 0]`, from these and from the others of their line
    (-1: none). A text is `texts_RL[row, :lengths_R[row]]`; its first `width` tokens are searched."""
    import torch

    device = texts_RL.device
    count, sources = rows_BS.shape
    rows_BS, absent_BS = rows_BS.clamp(min=0), rows_BS < 0
    lengths_BS = lengths_R[rows_BS].long().masked_fill(absent_BS, 0)
    own_B, ends_B = rows_BS[:, 0], lengths_BS[:, 0]

    at_BN = ends_B[:, None] - REACH + torch.arange(REACH, device=device)
    end_BN = texts_RL[own_B[:, None], at_BN.clamp(min=0)].masked_fill(at_BN < 0, -2)
    texts_XW = texts_RL[:, :width].index_select(0, rows_BS.flatten())
    padded_XW = torch.nn.functional.pad(texts_XW, (REACH - 1, 0), value=-1)
    windows_BSWN = padded_XW.unfold(1, REACH, 1).view(count, sources, -1, REACH)

    weights_N = (1 << torch.arange(REACH, device=device)).to(torch.uint8)
    agree_BSWN = (windows_BSWN == end_BN[:, None, None, :]) * weights_N
    places_W = torch.arange(windows_BSWN.shape[2], device=device)
    followed_BSW = places_W < lengths_BS[:, :, None] - 1
    agree_BSW = agree_BSWN.sum(-1, dtype=torch.int64) * followed_BSW

    order_SW = (sources - 1 - torch.arange(sources, device=device))[:, None] * places_W.shape[0] + places_W
    span = order_SW.numel()
    best_B = (agree_BSW * span + order_SW).flatten(1).amax(1)
    found_B = best_B // span >= sum(1 << (REACH - 1 - place) for place in range(SHORTEST))
    order_B = best_B % span
    source_B = sources - 1 - order_B // places_W.shape[0]
    from_B = order_B % places_W.shape[0] + 1

    source_B1 = source_B[:, None]
    copied_B = (lengths_BS.gather(1, source_B1)[:, 0] - from_B).clamp(min=1)
    at_BK = from_B[:, None] + torch.arange(most, device=device) % copied_B[:, None]
    drafts_BK = texts_RL[rows_BS.gather(1, source_B1), at_BK.clamp(max=texts_RL.shape[1] - 1)]
    return drafts_BK.long(), found_B
