"""What is sent to a remote endpoint: requests as bodies.

Fields outside OpenAI's API are sent under the names that the endpoint's dialect has for them; where it has none, a
request that needs them gets CapabilityMissing instead of an answer to another question.
"""

from __future__ import annotations

import json
from typing import Any

from reason_engine.engines.openai.wire.conversation import Conversation, decode
from reason_engine.engines.openai.wire.dialects import Dialect
from reason_engine.engines.openai.wire.prefill import BegunTurn
from reason_engine.errors import CapabilityMissing
from reason_engine.types import GenerateRequest, Message, Sampling, Structured


def body(
    request: GenerateRequest, dialect: Dialect, *, limit_field: str, begun: BegunTurn | None = None, ids: bool = False
) -> dict[str, Any]:
    """The JSON body of one streamed request, without `model`. A chat has `messages` in it, a completion `prompt`.
    `begun`: how the endpoint takes a begun answer; None: it does not. `ids`: the drawn tokens' ids are wanted.

    Raises RequestError for what no endpoint takes, CapabilityMissing for what the dialect has no field for.
    """
    sampling, prompt = request.sampling, request.prompt
    conversation = decode(prompt) if isinstance(prompt, str) else None
    fields: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "n": request.n,
    }
    if dialect.usage == "choice":
        fields["stream_options"]["continuous_usage_stats"] = True
    fields |= {**dialect.always, **(dialect.ids if ids else {})}
    if conversation is None:
        fields["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        limit_field = "max_tokens"
    else:
        fields |= _chat(conversation, dialect, begun)
    fields[limit_field] = sampling.max_tokens
    optional = {
        "stop": list(sampling.stop),
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias},
    }
    fields |= {name: value for name, value in optional.items() if value}
    if sampling.logprobs is not None:
        most = max(sampling.logprobs, dialect.fewest_logprobs)
        fields |= {"logprobs": True, "top_logprobs": most} if conversation else {"logprobs": most}
    if sampling.structured:
        fields |= _structured(sampling.structured, dialect)
    return fields | _beyond_openai(sampling, dialect)


def lacks(what: str) -> CapabilityMissing:
    """The refusal of a request that needs what an endpoint does not have; the message says what."""
    return CapabilityMissing(what, code="capability_missing")


def _chat(conversation: Conversation, dialect: Dialect, begun: BegunTurn | None) -> dict[str, Any]:
    """Messages and everything that belongs to the template."""
    messages = [_fields(turn, dialect) for turn in conversation.messages]
    fields: dict[str, Any] = {"messages": messages}
    if conversation.tools:
        fields["tools"] = list(conversation.tools)
    if conversation.think is not None:
        if dialect.template:
            fields["chat_template_kwargs"] = {"enable_thinking": conversation.think}
        elif not conversation.think:
            fields["reasoning_effort"] = "none"
    if conversation.prefill:
        if begun is None:
            raise lacks(
                "this endpoint does not go on with a begun answer (prefill), as far as could be told at start; "
                "where it does, say how with upstream_prefill"
            )
        messages.append(begun.turn(conversation.prefill))
        fields |= begun.fields
    return fields


def _structured(wanted: Structured, dialect: Dialect) -> dict[str, Any]:
    if wanted.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(wanted.json_schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if wanted.json_object:
        return {"response_format": {"type": "json_object"}}
    fields = dialect.constrained(wanted)
    _require(fields is not None, "regex constraints" if wanted.regex is not None else "choice constraints", dialect)
    return dict(fields or {})


def _beyond_openai(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """What OpenAI's API lacks, in the dialect's words; what has none there may not differ from its neutral value."""
    _require(sampling.draft in ("default", "none"), f"draft={sampling.draft!r}", dialect)
    neutral, fields = Sampling(), dict[str, Any]()
    for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos", "stop_token_ids", "include_stop"):
        value = getattr(sampling, name)
        if named := dialect.names.get(name):
            fields[named] = list(value) if isinstance(value, tuple) else value
        else:
            _require(value == getattr(neutral, name), name, dialect)
    if "top_k" in fields:
        fields["top_k"] = fields["top_k"] or dialect.all_top_k
    return fields


def _require(held: bool, what: str, dialect: Dialect) -> None:
    if not held:
        spoken = "OpenAI's API only" if dialect.kind in ("openai", "ollama") else f"the API of {dialect.kind}"
        raise lacks(f"this endpoint speaks {spoken}, which has no {what}; a vLLM endpoint or a local engine has")


def _fields(turn: Message, dialect: Dialect) -> dict[str, Any]:
    """A message as the endpoint takes it. Reasoning of earlier turns goes only to templates that may want it."""
    fields: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    others = {"tool_call_id": turn.tool_call_id, "name": turn.name}
    if dialect.reasoning:
        others[dialect.reasoning] = turn.reasoning
    return fields | {name: value for name, value in others.items() if value}
