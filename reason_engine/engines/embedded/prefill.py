"""Prompts through the model: several at a time, long ones in pieces, what is known of them copied instead.

Each segment has its own keys and values, (layers, length, 2 K, D), which become the prefix cache's entry as they are.

`choose`: the model's probabilities over a few continuations, read off one or two passes, nothing decoded.

p(option) = product over its tokens of p(token | prompt, tokens before). The prompt's last position gives every first
token; options of several tokens go through once more, all together, behind the prompt's keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.messages import Choose
from reason_engine.engines.embedded.model.adapter_layers import Patch
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.types import Choice


@dataclass(slots=True, eq=False)
class Segment:
    """A sequence on its way through the model. `done` tokens of it have their keys and values in `kv`."""

    ids: Sequence[int]
    kv: Tensor
    done: int = 0
    adapter: int = 0
    keep: int = 1
    """How many of its last positions' hidden states are wanted; they must go through in one pass."""

    @property
    def left(self) -> int:
        return len(self.ids) - self.done


def segment(
    decoder: Decoder, ids: Sequence[int], known: Tensor | None, length: int, adapter: int = 0, keep: int = 1
) -> Segment:
    """A segment whose first `length` tokens are known; at least `keep` are left to do."""
    s = decoder.shape
    size = (s.layers, len(ids), 2 * s.kv_heads, s.head_dim)
    kv = torch.empty(size, dtype=decoder.dtype, device=decoder.device)
    length = max(0, min(length, len(ids) - keep))
    if known is not None and length:
        kv[:, :length] = known[:, :length]
    return Segment(ids, kv, length, adapter, keep)


def advance(
    decoder: Decoder, segments: Sequence[Segment], limit: int, patch: Patch | None
) -> list[tuple[Segment, Tensor]]:
    """Run up to about `limit` more tokens of these; the segments that are whole, with their hidden states (keep, H)."""
    pieces: list[tuple[Segment, int]] = []
    for one in segments:
        count = min(one.left, limit)
        if count < one.left and one.left - count < one.keep:
            count = max(0, one.left - one.keep)
        if count == 0:
            break
        pieces.append((one, count))
        limit -= count
        if limit <= 0:
            break
    tokens = [t for one, count in pieces for t in one.ids[one.done : one.done + count]]
    positions = [p for one, count in pieces for p in range(one.done, one.done + count)]
    device = decoder.device
    if patch is not None:
        patch.select([one.adapter for one, count in pieces for _ in range(count)])
    attention = _Attention(decoder, pieces)
    hidden = decoder.forward(
        torch.tensor(tokens, device=device),
        torch.tensor(positions, device=device),
        attention.attend,
        max(positions) + 1,
        patch,
    )
    whole: list[tuple[Segment, Tensor]] = []
    end = 0
    for one, count in pieces:
        one.done += count
        end += count
        if one.left == 0:
            whole.append((one, hidden[end - one.keep : end]))
    return whole


class _Attention:
    """Causal attention of each piece over its own segment."""

    def __init__(self, decoder: Decoder, pieces: list[tuple[Segment, int]]) -> None:
        self.heads = decoder.shape.kv_heads
        self.pieces = pieces
        self.masks = [_mask(decoder, one.done, count) for one, count in pieces]

    def attend(self, layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> Tensor:
        """(N, Q D). Key heads stand as the batch, the queries that share one as its heads."""
        out: list[Tensor] = []
        at, keys = 0, self.heads
        for (one, count), mask in zip(self.pieces, self.masks, strict=True):
            end = one.done + count
            kv = one.kv[layer, :end]
            kv[one.done :] = kv_N2KD[at : at + count]
            q = q_NQD[at : at + count].unflatten(1, (keys, -1)).permute(1, 2, 0, 3)
            k, v = (
                part.transpose(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1)
                for part in (kv[:, :keys], kv[:, keys:])
            )
            a = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
            out.append(a.permute(2, 0, 1, 3).reshape(count, -1))
            at += count
        return out[0] if len(out) == 1 else torch.cat(out)


def _mask(decoder: Decoder, start: int, count: int) -> Tensor | None:
    """None where plain causal attention is meant; else (count, start + count) with minus infinity ahead of each."""
    if start == 0:
        return None
    ahead = torch.arange(start + count).unsqueeze(0) > torch.arange(start, start + count).unsqueeze(1)
    zero = torch.zeros(1, dtype=decoder.dtype).expand(count, start + count)
    return zero.masked_fill(ahead, float("-inf")).to(decoder.device)


def weigh(
    decoder: Decoder, job: Choose, prompt: Segment, hidden_1H: Tensor, cached: int, patch: Patch | None
) -> Choice:
    """The options' probabilities, once the prompt has gone through the model."""
    first_V = decoder.logits(hidden_1H)[-1].log_softmax(-1)
    totals: list[float] = first_V[torch.tensor([o[0] for o in job.options], device=decoder.device)].tolist()
    longer = {i: option for i, option in enumerate(job.options) if len(option) > 1}
    parts = {
        i: segment(
            decoder, (*job.ids, *option[:-1]), prompt.kv, len(job.ids), prompt.adapter, keep=len(option) - 1
        )
        for i, option in longer.items()
    }
    if parts:
        done = dict(advance(decoder, list(parts.values()), sum(p.left for p in parts.values()), patch))
        for i, part in parts.items():
            logp = decoder.logits(done[part]).log_softmax(-1)
            rest = torch.tensor(longer[i][1:], device=decoder.device).unsqueeze(1)
            totals[i] += float(logp.gather(1, rest).sum())
    best = max(totals)
    shares = [math.exp(total - best) for total in totals]
    mass = min(1.0, sum(math.exp(total) for total in totals))
    probabilities = tuple(share / sum(shares) for share in shares)
    return Choice(probabilities, mass, len(job.ids) - job.learned, max(0, cached - job.learned), 0)
