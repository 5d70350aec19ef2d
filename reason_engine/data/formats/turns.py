"""Turns of a conversation from a file: OpenAI's messages and ShareGPT's `from`/`value` alike, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from reason_engine.data.formats.rows import Turns
from reason_engine.types import Message, Role, ToolCall


class Bad(ValueError):
    """A row cannot be read: the field and what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"`{field}` {message}" if field else message)
        self.field, self.message = field, message


def turns(value: Any, key: str) -> Turns:
    """A list of turns in an order that a chat template can render. Raises Bad."""
    found = in_order(turns_of(value, key), key)
    if not any(turn.role == "user" for turn in found):
        raise Bad(key, "has no turn of the user")
    return found


def turns_of(value: Any, key: str) -> Turns:
    """A list of turns in whatever order. Raises Bad."""
    if not isinstance(value, list) or not value:
        raise Bad(key, "must be a list of messages with at least one")
    return tuple(_turn(entry, f"{key}[{place}]") for place, entry in enumerate(value))


def in_order(found: Sequence[Message], key: str) -> Turns:
    """System first, then user and assistant in turn; tool results after the call. Raises Bad."""
    before = ""
    for place, turn in enumerate(found):
        if turn.role not in _AFTER[before]:
            where = f"after a turn of the {before}" if before else "at the beginning"
            raise Bad(f"{key}[{place}]", f"a turn of the {turn.role} cannot stand {where}")
        before = "system" if turn.role == "developer" else turn.role
    return tuple(found)


def text(raw: Mapping[str, Any], key: str) -> str:
    """A field that must be text. Raises Bad."""
    value = raw.get(key)
    if not isinstance(value, str):
        raise Bad(key, f"must be text, not {_kind(value)}")
    return value


def blank(value: str, key: str) -> str:
    """The text unless it is empty. Raises Bad."""
    if not value.strip():
        raise Bad(key, "is empty")
    return value


def _turn(entry: Any, where: str) -> Message:
    if not isinstance(entry, dict):
        raise Bad(where, f"must be a message, not {_kind(entry)}")
    share = "from" in entry and "role" not in entry
    said = entry.get("from") if share else entry.get("role")
    role = _NAMES.get(said.casefold()) if isinstance(said, str) else None
    if role is None:
        raise Bad(f"{where}.{'from' if share else 'role'}", f"{said!r} is no role; one of: {_ROLES}")
    content, calls = entry.get("value" if share else "content"), _calls(entry.get("tool_calls"), where)
    if content is None and calls:
        content = ""
    if isinstance(content, list):
        content = _joined(content, where)
    if not isinstance(content, str):
        raise Bad(f"{where}.{'value' if share else 'content'}", f"must be text, not {_kind(content)}")
    reasoning = entry.get("reasoning") or entry.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise Bad(f"{where}.reasoning", "must be text")
    if role in ("user", "assistant") and not calls and not reasoning:
        blank(content, f"{where}.{'value' if share else 'content'}")
    name, call_id = entry.get("name"), entry.get("tool_call_id")
    return Message(
        role, content, reasoning, calls, str(call_id) if call_id else None, str(name) if name else None
    )


def _joined(parts: list[Any], where: str) -> str:
    """OpenAI's content parts, where all of them are text."""
    for place, part in enumerate(parts):
        good = isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
        if not good:
            raise Bad(f"{where}.content[{place}]", "only parts of text can be read")
    return "".join(part["text"] for part in parts)


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    found: list[ToolCall] = []
    for place, call in enumerate(value if isinstance(value, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Bad(f"{where}.tool_calls[{place}].function.name", "must be text")
        arguments = function.get("arguments", "{}")
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        found.append(ToolCall(str(call.get("id") or f"call-{place}"), function["name"], written))
    return tuple(found)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


_NAMES: dict[str, Role] = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "function_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip
_ROLES = ", ".join(_NAMES)
_AFTER: Mapping[str, tuple[str, ...]] = cast(
    Mapping[str, tuple[str, ...]],
    {
        "": ("system", "developer", "user"),
        "system": ("user",),
        "user": ("assistant",),
        "assistant": ("user", "tool"),
        "tool": ("assistant", "tool"),
    },
)
