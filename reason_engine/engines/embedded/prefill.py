"""Prompts through the model: several at a time, long ones in pieces, what is known of them copied instead.

Each segment has its own keys and values, (layers, length, 2 K, D); the prefix cache keeps what of them is new to it.
`score_options` reads the probabilities of a few continuations off one or two passes; nothing is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.model.adapters import AdapterLayers
from reason_engine.engines.embedded.model.decoder import Attend, Decoder


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


def new_segment(
    decoder: Decoder, ids: Sequence[int], known: Sequence[Tensor] = (), length: int = 0, adapter: int = 0, keep: int = 1
) -> Segment:
    """A segment whose first `length` tokens are known, in pieces; at least `keep` are left to do."""
    s = decoder.shape
    size = (s.layers, len(ids), 2 * s.kv_heads, s.head_dim)
    kv = torch.empty(size, dtype=decoder.dtype, device=decoder.device)
    length = max(0, min(length, len(ids) - keep))
    at = 0
    for piece in known:
        count = min(piece.shape[1], length - at)
        kv[:, at : at + count] = piece[:, :count]
        at += count
    return Segment(ids, kv, length, adapter, keep)


def advance(
    decoder: Decoder, segments: Sequence[Segment], limit: int, adapters: AdapterLayers | None
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
    if adapters is not None:
        adapters.select([one.adapter for one, count in pieces for _ in range(count)])
    tokens_N, positions_N = torch.tensor([tokens, positions], device=decoder.device)
    hidden = decoder.forward(tokens_N, positions_N, _causal_attention(decoder, pieces), max(positions) + 1, adapters)
    whole: list[tuple[Segment, Tensor]] = []
    end = 0
    for one, count in pieces:
        one.done += count
        end += count
        if one.left == 0:
            whole.append((one, hidden[end - one.keep : end]))
    return whole


def _causal_attention(decoder: Decoder, pieces: list[tuple[Segment, int]]) -> Attend:
    """Of each piece over its own segment."""
    keys = decoder.shape.kv_heads
    masks = [_mask(decoder, one.done, count) for one, count in pieces]

    def attend(layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> Tensor:
        """(N, Q D). Key heads stand as the batch, the queries that share one as its heads."""
        out, at = list[Tensor](), 0
        for (one, count), mask in zip(pieces, masks, strict=True):
            end = one.done + count
            kv = one.kv[layer, :end]
            kv[one.done :] = kv_N2KD[at : at + count]
            q = q_NQD[at : at + count].unflatten(1, (keys, -1)).permute(1, 2, 0, 3)
            both = kv.transpose(0, 1).unsqueeze(1).expand(-1, q.shape[1], -1, -1)
            k, v = both[:keys], both[keys:]
            a = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
            out.append(a.permute(2, 0, 1, 3).reshape(count, -1))
            at += count
        return out[0] if len(out) == 1 else torch.cat(out)

    return attend


def _mask(decoder: Decoder, start: int, count: int) -> Tensor | None:
    """None where plain causal attention is meant; else (count, start + count) with minus infinity ahead of each."""
    if start == 0:
        return None
    ahead = torch.arange(start + count).unsqueeze(0) > torch.arange(start, start + count).unsqueeze(1)
    zero = torch.zeros(1, dtype=decoder.dtype).expand(count, start + count)
    return zero.masked_fill(ahead, float("-inf")).to(decoder.device)


def score_options(
    decoder: Decoder,
    options: Sequence[tuple[int, ...]],
    prompt: Segment,
    hidden_1H: Tensor,
    adapters: AdapterLayers | None,
) -> tuple[tuple[float, ...], float]:
    """The options' probabilities, normalised, and their share of the distribution, once the prompt has gone through.

    p(option) = product over its tokens of p(token | prompt, tokens before). The prompt's last position gives every
    first token; options of several tokens go through once more, all together, behind the prompt's keys and values.
    """
    first_V = decoder.logits(hidden_1H)[-1].log_softmax(-1)
    totals: list[float] = first_V[torch.tensor([o[0] for o in options], device=decoder.device)].tolist()
    longer = {i: option for i, option in enumerate(options) if len(option) > 1}
    parts = {
        i: new_segment(
            decoder, (*prompt.ids, *option[:-1]), [prompt.kv], len(prompt.ids), prompt.adapter, keep=len(option) - 1
        )
        for i, option in longer.items()
    }
    if parts:
        done = dict(advance(decoder, list(parts.values()), sum(p.left for p in parts.values()), adapters))
        for i, part in parts.items():
            logp = decoder.logits(done[part]).log_softmax(-1)
            rest = torch.tensor(longer[i][1:], device=decoder.device).unsqueeze(1)
            totals[i] += float(logp.gather(1, rest).sum())
    best = max(totals)
    shares = [math.exp(total - best) for total in totals]
    mass = min(1.0, sum(math.exp(total) for total in totals))
    return tuple(share / sum(shares) for share in shares), mass
