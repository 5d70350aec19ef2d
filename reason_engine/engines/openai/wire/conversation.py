"""Conversations as prompts, and back.

The Engine contract takes prompts as text, a chat endpoint takes messages. `encode` writes a conversation as one line
of JSON; whatever follows that line is the beginning of the assistant's turn. So a prompt may be continued by appending
text to it, as with an engine that renders its own template, and `decode` finds both parts again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reason_engine.types import Message, ToolCall


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


def _message(turn: Mapping[str, Any]) -> Message:
    calls: Sequence[Mapping[str, str]] = turn.get("tool_calls", ())
    return Message(**{**turn, "tool_calls": tuple(ToolCall(**call) for call in calls)})
