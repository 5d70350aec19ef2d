"""`choose`: the model's probabilities over a few continuations, read off one or two passes, nothing decoded.

p(option) = product over its tokens of p(token | prompt, tokens before). The prompt's last position gives every first
token; options of several tokens go through once more, all together, behind the prompt's keys and values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reason_engine.engines.embedded.decoder import Decoder
from reason_engine.engines.embedded.messages import Choose
from reason_engine.engines.embedded.patch import Patch
from reason_engine.engines.embedded.prefill import Segment, advance, segment
from reason_engine.types import Choice


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
