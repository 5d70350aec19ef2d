"""Requests on their way to the worker: what is refused, each with the field at fault.

A prompt that comes as token ids is not tokenised again. Never loads torch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Container, Sequence

from reason_engine.contracts import Capabilities
from reason_engine.engines import check_counts, room_left
from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded import grammar
from reason_engine.engines.text import token_ids_of
from reason_engine.errors import RequestError
from reason_engine.types import GenerateRequest, Prompt

LONG = 20_000
"""Characters above which a prompt is tokenised beside the event loop."""

RANGES = {
    "temperature": (0.0, 100.0), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0), "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0), "repetition_penalty": (1e-3, 100.0),
}  # fmt: skip


async def prompt_ids(chat: ChatFormat, prompt: str | Sequence[int]) -> tuple[int, ...]:
    """The prompt's tokens; those of a long text are made in a thread."""
    if isinstance(prompt, Prompt) or len(prompt) < LONG:
        return token_ids_of(prompt, chat.tokenize)
    return await asyncio.to_thread(token_ids_of, prompt, chat.tokenize)


def check_prompt(ids: Sequence[int], context: int, vocab: int) -> None:
    """At least one token, all of the vocabulary, and room for one more."""
    if ids and not 0 <= min(ids) <= max(ids) < vocab:
        raise RequestError(f"a prompt token is outside the vocabulary of {vocab}", param="prompt")
    room_left(len(ids), context)


def check(request: GenerateRequest, vocab: int, caps: Capabilities, running: Container[str]) -> None:
    """Everything else about a request."""
    sampling = request.sampling
    check_counts(request, running)
    for name, (low, high) in RANGES.items():
        value: float = getattr(sampling, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise RequestError(f"{name} must be in {low:g}..{high:g}, not {value:g}", param=name)
    if any(not math.isfinite(value) for _, value in sampling.logit_bias):
        raise RequestError("logit_bias must be finite", param="logit_bias")
    if sampling.top_k < -1:
        raise RequestError("top_k must be at least -1", param="top_k")
    if sampling.logprobs is not None and not 0 <= sampling.logprobs <= caps.logprobs:
        raise RequestError(f"logprobs must be in 0..{caps.logprobs}", param="top_logprobs")
    if not all(sampling.stop):
        raise RequestError("a stop string must not be empty", param="stop")
    if any(not 0 <= token < vocab for token, _ in sampling.logit_bias):
        raise RequestError(f"a token of logit_bias is outside the vocabulary of {vocab}", param="logit_bias")
    if sampling.structured is not None:
        grammar.check(sampling.structured)
