"""Probabilities over a few words from the alternatives that an endpoint reports for one token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reason_engine.engines.openai.wire.request import lacks
from reason_engine.types import Choice, Chunk


def choice_of(options: Sequence[str], chunks: Sequence[Chunk], think_start: str) -> Choice:
    """The choice that the one token of these chunks tells. Raises CapabilityMissing where it tells none: no
    alternatives came, or the model was about to think."""
    if "".join(chunk.text for chunk in chunks).lstrip().startswith(think_start):
        raise lacks("this endpoint's model thinks before it answers, so its first word says nothing of the options")
    top = next((chunk.logprobs[0].top for chunk in chunks if chunk.logprobs and chunk.logprobs[0].top), ())
    if not top:
        raise lacks("the endpoint was asked for logprobs and sent none")
    shares = option_shares(options, {token: logprob for _, token, logprob in top})
    mass = sum(shares)
    probabilities = tuple(share / mass if mass else 1 / len(shares) for share in shares)
    counts = zip(*((one.prompt_tokens, one.cached_tokens, one.token_count) for one in chunks), strict=True)
    return Choice(probabilities, min(1.0, mass), *map(sum, counts))


def option_shares(options: Sequence[str], top: Mapping[str, float]) -> list[float]:
    """Probability of each option from the alternatives {token text: logprob} of the next token.

    A token counts for an option if it begins it (leading blanks aside) and begins no other one.
    """
    shares = [0.0] * len(options)
    for token, logprob in top.items():
        start = token.strip()
        begun = [i for i, option in enumerate(options) if start and option.strip().startswith(start)]
        if len(begun) == 1:
            shares[begun[0]] += math.exp(logprob)
    return shares
