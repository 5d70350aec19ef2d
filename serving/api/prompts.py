"""From a request's fields to what the engine is asked: sampling, output format, and a first look at the length."""

from __future__ import annotations

import asyncio
import json
import secrets

from reason_engine.contracts import Capabilities, Engine
from reason_engine.errors import CapabilityMissing, ContextLengthExceeded, RequestError
from reason_engine.serving.api.schema import ChatRequest, Sampled, stop_strings
from reason_engine.types import Problem, Sampling, Structured

SLICE = 16_384
"""Characters that are tokenised between two turns of the event loop."""


def sampling_of(body: ChatRequest, context: int) -> Sampling:
    """The sampling of the final paths. `max_tokens` 0 stands for the rest of the context. Raises RequestError."""
    param = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    most = body.max_completion_tokens or body.max_tokens or 0
    return sampled(body, param, most, context, (body.top_logprobs or 0) if body.logprobs else None)


def sampled(body: Sampled, param: str, most: int, context: int, logprobs: int | None) -> Sampling:
    """What chat and plain completions share. Raises RequestError where `most` tokens can never fit."""
    if most > context:
        raise RequestError(
            f"{param}: allowed: >= 1 and <= {context}, the model's context; got {most}; the nearest valid value is "
            f"{context}",
            param=param,
            code="invalid_value",
        )
    return Sampling(
        max_tokens=most,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        seed=(secrets.randbits(31) if body.seed is None else body.seed) % 2**31,
        stop=stop_strings(body),
        include_stop=bool(body.include_stop_str_in_output),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
    )


def structured_of(body: ChatRequest, caps: Capabilities) -> Structured | None:
    """What `response_format` asks of the text. Raises CapabilityMissing where the engine cannot hold it."""
    wanted = body.response_format
    if body.tools and body.tool_choice not in (None, "auto", "none") and not caps.structured:
        raise CapabilityMissing(
            "tool_choice: this engine cannot be held to a call; only auto and none", param="tool_choice"
        )
    if wanted is None or wanted.type == "text":
        return None
    if not caps.structured:
        raise CapabilityMissing(
            f"response_format.type: this engine cannot hold {wanted.type}; only text",
            param="response_format.type",
        )
    if wanted.json_schema is None:
        return Structured(json_object=True)
    return Structured(json_schema=json.dumps(wanted.json_schema.schema_))


async def check_length(problem: Problem, engine: Engine) -> None:
    """Refuse a prompt that is far too long after tokenising little more than the context, not all of it.

    Prompts near the limit pass here; the run itself counts them exactly. Raises ContextLengthExceeded.
    """
    texts = [turn.content for turn in problem.turns()]
    context = engine.info.context
    if sum(map(len, texts)) <= max(context, SLICE):
        return
    count = 0
    for text in texts:
        for start in range(0, len(text), SLICE):
            count += len(engine.tokenize(text[start : start + SLICE]))
            if count > context + SLICE // 64:
                raise ContextLengthExceeded(
                    f"the prompt has more than {context} tokens, which is this model's context, answer included",
                    param="messages",
                    code="context_length_exceeded",
                )
            await asyncio.sleep(0)
