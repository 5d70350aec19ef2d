"""What a model of the harmony format wrote: messages in channels, each with its header.

`analysis` is reasoning; `final`, and `commentary` to nobody, are the answer; a message to `functions.NAME` is a call.
See OpenAI's description of the format (developers.openai.com/cookbook, "harmony response format").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reason_engine.engines.chat.call_readers import Call, read_json

START, CHANNEL, MESSAGE = "<|start|>assistant", "<|channel|>", "<|message|>"
_MESSAGE = re.compile(
    r"(?:<\|start\|>assistant)?(?P<to>[^<]*)<\|channel\|>(?P<head>.*?)<\|message\|>(?P<body>.*?)"
    r"(?=<\|(?:end|call|return|start|channel)\|>|\Z)(?:<\|(?:end|call|return)\|>)?",
    re.DOTALL,
)
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
    for found in _MESSAGE.finditer(whole):
        head, body = found["to"] + found["head"], found["body"].strip()
        recipient = _RECIPIENT.search(head)
        if recipient and (made := _call(recipient[1], body)):
            calls.extend(made)
        elif "analysis" in found["head"]:
            reasoning.append(body)
        else:
            content.append(body)
    return Messages("\n\n".join(filter(None, reasoning)) or None, "\n\n".join(filter(None, content)), tuple(calls))


def _call(name: str | None, body: str) -> list[Call] | None:
    """A call of a named function, or JSON that names one itself."""
    if name is not None:
        return [(name, body or "{}")]
    read = read_json(body)
    return read[0] if read else None
