"""Chat messages to a `Problem`: the last user turn is the question, what came before it the history.

Earlier reasoning is dropped, except after the last user turn: a model in a tool loop reads its own thoughts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reason_engine.errors import RequestError
from reason_engine.serving.api.validation import as_list, as_object
from reason_engine.types import Message, Role, ToolCall

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
        raise RequestError("messages: no user turn to answer", param="messages", code="invalid_value")
    if not turns[last].content.strip():
        raise _wrong(f"messages.{last}.content", "is empty")
    history = tuple(_without_reasoning(turn) for turn in turns[:last])
    return history, turns[last].content, tuple(turns[last + 1 :])


def _message(index: int, item: object) -> Message:
    where = f"messages.{index}"
    turn = as_object(item)
    if turn is None:
        raise _wrong(where, "must be an object")
    role = turn.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise _wrong(f"{where}.role", f"must be one of {', '.join(ROLES)}")
    calls = _calls(f"{where}.tool_calls", turn.get("tool_calls"))
    reasoning = _text(f"{where}.reasoning", turn.get("reasoning")) or _text(
        f"{where}.reasoning_content", turn.get("reasoning_content")
    )
    content = _content(f"{where}.content", turn.get("content"))
    if content is None and not (calls or role == "assistant"):
        raise _wrong(f"{where}.content", "is required")
    call_id = _text(f"{where}.tool_call_id", turn.get("tool_call_id"))
    if role == "tool" and call_id is None:
        raise _wrong(f"{where}.tool_call_id", "is required")
    name = _text(f"{where}.name", turn.get("name"))
    return Message(ROLES[role], content or "", reasoning, calls, call_id, name)


def _content(where: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    parts = as_list(value)
    if parts is None:
        raise _wrong(where, "must be a string or a list of parts")
    texts: list[str] = []
    for i, item in enumerate(parts):
        here = f"{where}.{i}"
        part = as_object(item)
        if part is None:
            raise _wrong(here, "must be an object")
        if part.get("type") not in ("text", "input_text", "refusal"):
            kind = str(part.get("type"))[:40]
            raise RequestError(
                f"{here}.type: {kind!r} is not served; this server reads text only",
                param=f"{here}.type",
                code="unsupported_content",
            )
        text = part.get("refusal" if part["type"] == "refusal" else "text")
        if not isinstance(text, str):
            raise _wrong(f"{here}.text", "must be a string")
        texts.append(text)
    return "".join(texts)


def _calls(where: str, value: object) -> tuple[ToolCall, ...]:
    if value is None:
        return ()
    items = as_list(value)
    if items is None:
        raise _wrong(where, "must be a list")
    calls: list[ToolCall] = []
    for i, item in enumerate(items):
        call = as_object(item) or {}
        function = as_object(call.get("function")) or {}
        name, arguments = function.get("name"), function.get("arguments", "")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise _wrong(f"{where}.{i}.function", "needs a name and arguments, both strings")
        calls.append(ToolCall(str(call.get("id") or f"call_{i}"), name, arguments))
    return tuple(calls)


def _text(where: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _wrong(where, "must be a string")


def _without_reasoning(turn: Message) -> Message:
    if turn.reasoning is None:
        return turn
    return Message(turn.role, turn.content, None, turn.tool_calls, turn.tool_call_id, turn.name)


def _wrong(where: str, why: str) -> RequestError:
    return RequestError(f"{where}: {why}", param=where, code="invalid_value")
