"""What a model of the harmony format wrote: messages in channels, each with its header.

`analysis` is reasoning; `final`, and `commentary` to nobody, are the answer; a message to `functions.NAME` is a call.
See OpenAI's description of the format (developers.openai.com/cookbook, "harmony response format").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reason_engine.engines.chat.call_readers import Call, read_json

CHANNEL, MESSAGE, START = "<|channel|>", "<|message|>", "<|start|>"
_ENDS = re.compile(r"<\|(?:end|call|return|start)\|>")
_RECIPIENT = re.compile(r"to=functions(?:\.([\w.-]+))?")


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages of one turn, joined by what they are."""

    reasoning: str | None
    content: str
    calls: tuple[Call, ...]


def read_messages(text: str, turn: str) -> Messages:
    """The messages of what follows `turn`, the beginning of the assistant's turn."""
    begun = turn[turn.rfind(CHANNEL) :] if CHANNEL in turn and turn.rfind("<|end|>") < turn.rfind(CHANNEL) else ""
    whole = begun + text
    if CHANNEL not in whole:
        return Messages(None, text, ())
    reasoning: list[str] = []
    content: list[str] = []
    calls: list[Call] = []
    before, *parts = whole.split(CHANNEL)
    for part in parts:
        head, _, rest = part.partition(MESSAGE)
        body = _ENDS.split(rest, maxsplit=1)[0].strip()
        recipient = _RECIPIENT.search(f"{before.rpartition(START)[2]} {head}")  # named before its channel, or after it
        if recipient and (made := _call(recipient[1], body)):
            calls.extend(made)
        elif head.startswith("analysis"):
            reasoning.append(body)
        else:
            content.append(body)
        before = part
    return Messages("\n\n".join(filter(None, reasoning)) or None, "\n\n".join(filter(None, content)), tuple(calls))


def _call(name: str | None, body: str) -> list[Call] | None:
    """A call of a named function, or JSON that names one itself."""
    if name is not None:
        return [(name, body or "{}")]
    read = read_json(body)
    return read[0] if read else None
