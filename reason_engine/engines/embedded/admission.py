"""What is refused before anything runs, each with the field at fault."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Container, Sequence

from reason_engine.contracts import Capabilities
from reason_engine.engines._chat import ChatFormat
from reason_engine.engines._requests import check_counts, room_left
from reason_engine.engines.embedded import grammar
from reason_engine.errors import RequestError
from reason_engine.types import GenerateRequest, Sampling

LONG = 20_000
"""Characters above which a prompt is tokenised beside the event loop."""

RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "repetition_penalty": (1e-3, 100.0),
}


async def prompt_ids(chat: ChatFormat, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """The prompt's tokens."""
    if not isinstance(prompt, str):
        return tuple(prompt)
    return tuple(
        chat.tokenize(prompt) if len(prompt) < LONG else await asyncio.to_thread(chat.tokenize, prompt)
    )


def check_prompt(ids: Sequence[int], context: int, vocab: int) -> None:
    """At least one token, all of the vocabulary, and room for one more."""
    if ids and not 0 <= min(ids) <= max(ids) < vocab:
        raise RequestError(f"a prompt token is outside the vocabulary of {vocab}", param="prompt")
    room_left(len(ids), context)


def check_options(options: Sequence[Sequence[int]]) -> None:
    """At least one option, none of them empty."""
    if not options or not all(options):
        raise RequestError("options must be one or more texts that are not empty", param="options")


def check(request: GenerateRequest, vocab: int, caps: Capabilities, running: Container[str]) -> None:
    """Everything else about a request."""
    sampling = request.sampling
    check_counts(request, running)
    _check_ranges(sampling)
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= caps.logprobs:
        raise RequestError(f"logprobs must be in 0..{caps.logprobs}", param="top_logprobs")
    if not all(sampling.stop):
        raise RequestError("a stop string must not be empty", param="stop")
    if any(not 0 <= token < vocab for token, _ in sampling.logit_bias):
        raise RequestError(f"a token of logit_bias is outside the vocabulary of {vocab}", param="logit_bias")
    if sampling.structured is not None:
        grammar.check(sampling.structured)


def _check_ranges(sampling: Sampling) -> None:
    values = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
    }
    for name, value in values.items():
        low, high = RANGES[name]
        if not (math.isfinite(value) and low <= value <= high):
            raise RequestError(f"{name} must be in {low:g}..{high:g}, not {value:g}", param=name)
    if any(not math.isfinite(value) for _, value in sampling.logit_bias):
        raise RequestError("logit_bias must be finite", param="logit_bias")
    if sampling.top_k < -1:
        raise RequestError("top_k must be at least -1", param="top_k")
