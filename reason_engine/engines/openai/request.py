"""What is sent to a remote endpoint: conversations as prompts, and requests as bodies.

The Engine contract takes prompts as text, a chat endpoint takes messages. `encode` writes a conversation as one line
of JSON; whatever follows that line is the beginning of the assistant's turn. So a prompt may be continued by appending
text to it, as with an engine that renders its own template, and `decode` finds both parts again.

Fields outside OpenAI's API are sent only to an endpoint of vLLM's dialect; elsewhere a request that needs them gets
CapabilityMissing instead of an answer to another question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reason_engine.engines.openai.prefill import BegunTurn
from reason_engine.errors import CapabilityMissing
from reason_engine.types import GenerateRequest, Message, Sampling, Structured, ToolCall

Dialect = Literal["openai", "vllm"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A decoded prompt: the turns, the options of the template, and the beginning of the assistant's turn."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | None = None
    prefill: str = ""


def encode(conversation: Conversation) -> str:
    """One line of JSON, a newline, then the prefill."""
    turns = [{key: value for key, value in asdict(turn).items() if value} for turn in conversation.messages]
    head = {"messages": turns, "tools": list(conversation.tools), "think": conversation.think}
    return f"{json.dumps(head, ensure_ascii=False)}\n{conversation.prefill}"


def decode(prompt: str) -> Conversation | None:
    """The conversation that `encode` wrote; None where the prompt is plain text."""
    if not prompt.startswith('{"messages": ['):
        return None
    head, _, prefill = prompt.partition("\n")
    try:
        found = json.loads(head)
        turns = tuple(_message(turn) for turn in found["messages"])
        return Conversation(turns, tuple(found["tools"]), found["think"], prefill)
    except (ValueError, KeyError, TypeError):
        return None


def body(
    request: GenerateRequest, dialect: Dialect, *, limit_field: str, begun: BegunTurn | None = None
) -> dict[str, Any]:
    """The JSON body of one streamed request, without `model`. A chat has `messages` in it, a completion `prompt`.
    `begun`: how the endpoint takes a begun answer; None: it does not.

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
    if dialect == "vllm":
        fields["stream_options"]["continuous_usage_stats"] = True
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
        chat = {"logprobs": True, "top_logprobs": sampling.logprobs}
        fields |= chat if conversation else {"logprobs": sampling.logprobs}
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
        if dialect == "vllm":
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
    _require(dialect == "vllm", "regex and choice constraints")
    regex = {"regex": wanted.regex}
    return {"structured_outputs": regex if wanted.regex is not None else {"choice": list(wanted.choice)}}


def _beyond_openai(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Fields of vLLM's own, all sent, since its defaults come from the model's generation_config. Elsewhere none may
    differ from its neutral value."""
    _require(sampling.draft in ("default", "none"), f"draft={sampling.draft!r}")
    names = ("top_k", "min_p", "repetition_penalty", "ignore_eos", "stop_token_ids", "include_stop")
    fields, neutral = {name: getattr(sampling, name) for name in names}, Sampling()
    if dialect == "vllm":
        fields |= {"stop_token_ids": list(sampling.stop_token_ids), "return_token_ids": True}
        return fields | {"include_stop_str_in_output": fields.pop("include_stop")}
    for name, value in fields.items():
        _require(value == getattr(neutral, name), name)
    return {}


def _require(held: bool, what: str) -> None:
    if not held:
        raise lacks(
            f"this endpoint speaks OpenAI's API only, which has no {what}; a vLLM endpoint or a local engine has"
        )


def _fields(turn: Message, dialect: Dialect) -> dict[str, Any]:
    """A message as the endpoint takes it. Reasoning of earlier turns goes only to templates that may want it."""
    fields: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    reasoning = turn.reasoning if dialect == "vllm" else None
    others = {"tool_call_id": turn.tool_call_id, "name": turn.name, "reasoning": reasoning}
    return fields | {name: value for name, value in others.items() if value}


def _message(turn: Mapping[str, Any]) -> Message:
    calls: Sequence[Mapping[str, str]] = turn.get("tool_calls", ())
    return Message(**{**turn, "tool_calls": tuple(ToolCall(**call) for call in calls)})
