"""Chat messages as the API writes them: those of a request read into a `Problem`, and an outcome as its choice.

The last user turn is the question, what came before it the history. Earlier reasoning is dropped, except after the last
user turn: a model in a tool loop reads its own thoughts again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reason_engine.runtime.solve import Outcome, numbered_sources
from reason_engine.serving.api.errors import as_list, as_object, invalid
from reason_engine.types import Message, Role, TokenLogprob, ToolCall, Usage

ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",  # the newer name of the same role; chat templates know the older one
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


def read_messages(raw: list[Any]) -> tuple[tuple[Message, ...], str, tuple[Message, ...]]:
    """(history, question, tail). Raises RequestError (400) naming `messages.<index>.<field>`."""
    turns = [_message(i, item) for i, item in enumerate(raw)]
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0:
        raise invalid("messages", "no user turn to answer")
    if not turns[last].content.strip():
        raise invalid(f"messages.{last}.content", "is empty")
    history = tuple(replace(turn, reasoning=None) for turn in turns[:last])
    return history, turns[last].content, tuple(turns[last + 1 :])


def _message(index: int, item: object) -> Message:
    where = f"messages.{index}"
    turn = as_object(item)
    if turn is None:
        raise invalid(where, "must be an object")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    calls = _calls(f"{where}.tool_calls", turn.get("tool_calls"))
    reasoning = _text(f"{where}.reasoning", turn.get("reasoning")) or _text(
        f"{where}.reasoning_content", turn.get("reasoning_content")
    )
    content = _content(f"{where}.content", turn.get("content"))
    if content is None and not (calls or role == "assistant"):
        raise invalid(f"{where}.content", "is required")
    call_id = _text(f"{where}.tool_call_id", turn.get("tool_call_id"))
    if role == "tool" and call_id is None:
        raise invalid(f"{where}.tool_call_id", "is required")
    name = _text(f"{where}.name", turn.get("name"))
    return Message(ROLES[role], content or "", reasoning, calls, call_id, name)


def _content(where: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    parts = as_list(value)
    if parts is None:
        raise invalid(where, "must be a string or a list of parts")
    texts: list[str] = []
    for i, item in enumerate(parts):
        here = f"{where}.{i}"
        part = as_object(item)
        if part is None:
            raise invalid(here, "must be an object")
        if part.get("type") not in ("text", "input_text", "refusal"):
            why = f"{str(part.get('type'))[:40]!r} is not served; this server reads text only"
            raise invalid(f"{here}.type", why, "unsupported_content")
        text = part.get("refusal" if part["type"] == "refusal" else "text")
        if not isinstance(text, str):
            raise invalid(f"{here}.text", "must be a string")
        texts.append(text)
    return "".join(texts)


def _calls(where: str, value: object) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    items = as_list(value)
    if items is None:
        raise invalid(where, "must be a list")
    calls: list[ToolCall] = []
    for i, item in enumerate(items):
        call = as_object(item) or {}
        function = as_object(call.get("function")) or {}
        name, arguments = function.get("name"), function.get("arguments", "")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise invalid(f"{where}.{i}.function", "needs a name and arguments, both strings")
        calls.append(ToolCall(str(call.get("id") or f"call_{i}"), name, arguments))
    return tuple(calls)


def _text(where: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise invalid(where, "must be a string")


def finish_reason(outcome: Outcome) -> str:
    """Clients know stop, length, tool_calls and content_filter; a text cut short for any reason is `length`."""
    return outcome.finish_reason if outcome.finish_reason not in ("abort", "error") else "length"


def reason_of(outcome: Outcome, strategy: str) -> dict[str, Any]:
    """What the strategy did: the `reason` object of a choice."""
    answer = outcome.answer
    return {
        "strategy": strategy,
        "answer": answer.value,
        "confidence": answer.confidence,
        "samples": outcome.samples,
        "unread": outcome.unread,
        "cut": outcome.cut,
        "votes": [{"answer": vote.answer, "count": vote.count} for vote in answer.votes],
        "stopped": outcome.stopped,
        "seconds": round(outcome.seconds, 4),
        "usage_by_stage": {
            stage: {"prompt": used.prompt, "cached": used.cached, "completion": used.completion}
            for stage, used in outcome.usage_by_stage.items()
        },
        "trace": outcome.id,
        **({"filtered": outcome.filtered} if outcome.filtered else {}),
        **({} if outcome.sources is None else {"sources": numbered_sources(outcome.sources)}),
    }


def usage_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The request's usage: the client's prompt once, and every generated token of every branch of every choice."""
    prompt = max((outcome.prompt_tokens for outcome in outcomes), default=0)
    return usage_object(total_usage(outcomes), prompt, sum(outcome.content_tokens for outcome in outcomes))


def total_usage(outcomes: Sequence[Outcome]) -> Usage:
    """What all internal calls of all choices cost."""
    return sum((outcome.usage for outcome in outcomes), Usage())


def usage_object(total: Usage, prompt: int, shown: int) -> dict[str, Any]:
    """OpenAI's `usage`. `prompt`: tokens of the client's prompt; `shown`: generated tokens that are in the content."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": total.completion,
        "total_tokens": prompt + total.completion,
        # Internal prompts repeat the client's; of the one that is counted here, no more than all can be cached.
        "prompt_tokens_details": {"cached_tokens": min(total.cached, prompt)},
        "completion_tokens_details": {
            "reasoning_tokens": max(0, total.completion - shown),
            "accepted_prediction_tokens": total.draft_accepted,
            "rejected_prediction_tokens": total.draft_rejected,
        },
    }


def message_of(outcome: Outcome, *, exclude: bool) -> dict[str, Any]:
    """The assistant's message; the reasoning under both names that clients read."""
    content = None if outcome.tool_calls and not outcome.content else outcome.content
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if not exclude:
        message["reasoning"] = message["reasoning_content"] = outcome.reasoning
    if outcome.tool_calls:
        message["tool_calls"] = tool_calls_of(outcome.tool_calls)
    return message


def tool_calls_of(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def logprobs_of(tokens: Sequence[TokenLogprob], top: int) -> dict[str, Any]:
    """OpenAI's `choice.logprobs` of the content's tokens, with `top` alternatives each."""

    def entry(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": max(value, -9999.0), "bytes": list(token.encode("utf-8", "replace"))}

    content = [
        {**entry(one.token, one.logprob), "top_logprobs": [entry(text, value) for _, text, value in one.top[:top]]}
        for one in tokens
    ]
    return {"content": content, "refusal": None}
