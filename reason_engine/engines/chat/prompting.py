"""What a template can take, tried once at load, and turns written so that it takes them.

A template without a system role gets the system text in the first user turn; one that fails without a system turn
gets an empty one; one that reads contents in parts, or joins arguments of past tool calls to text, gets them so. What
is left to refuse is a RequestError that names the field: `tools` where it would take the turns without them, else
`messages`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reason_engine.engines.chat.template import FAULTS, SYSTEM_ROLES, Template, Turn, with_system_folded
from reason_engine.errors import RequestError
from reason_engine.types import Message


class Prompting:
    """A template with what was found by trying it. `probe`: the least turns that it renders."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._developer = "developer" in template.source
        self._thinking = "message.thinking" in template.source
        self._parts = not _shows(template, _ASKED) and _shows(template, _in_parts(_ASKED))
        asked, system, empty = map(self._written, (_ASKED, _SYSTEM, _EMPTY))
        plain, said = (template.tried(turns) for turns in ([asked], [system, asked]))
        self.system_role = plain is None or (said is not None and _SYSTEM["content"] in said)
        self._needs_system = plain is None and said is not None
        self.probe: list[Turn] = [empty, asked] if self._needs_system else [asked]
        self.tools: Literal["renders", "ignores", "refuses"] = self._tools()

    def turns(self, messages: Sequence[Message]) -> list[Turn]:
        """Messages as the template takes them."""
        made: list[Turn] = [self._as_dict(message) for message in messages]
        if not self.system_role:
            made = list(with_system_folded(made))
        elif self._needs_system and not (made and made[0]["role"] in SYSTEM_ROLES):
            made = [_EMPTY, *made]
        return [self._written(turn) for turn in made]

    def _written(self, turn: Turn) -> Turn:
        """A turn as the template reads contents: as text, or in parts."""
        return _in_parts(turn) if self._parts else turn

    def render(self, turns: Sequence[Turn], *, tools: Sequence[Turn], names: Mapping[str, Any], open: bool) -> str:
        """The text of these turns. Raises RequestError naming what the template refuses."""
        try:
            return self._template.render(turns, tools=tools, names=names, open=open)
        except FAULTS as error:
            spelled = [_with_text_arguments(turn) for turn in turns]
            again = self._template.tried(spelled, tools=tools, names=names, open=open) if spelled != turns else None
            if again is not None:
                return again
            if tools and self._template.tried(turns, names=names, open=open) is not None:
                raise RequestError(f"the model's chat template takes no tools: {error}", param="tools") from None
            raise RequestError(f"the model's chat template refused the messages: {error}", param="messages") from None

    def _tools(self) -> Literal["renders", "ignores", "refuses"]:
        text = self._template.tried(self.probe, tools=[_TOOL])
        if text is None:
            return "refuses"
        return "renders" if _TOOL["function"]["name"] in text else "ignores"

    def _as_dict(self, message: Message) -> Turn:
        role = "system" if message.role == "developer" and not self._developer else message.role
        out: dict[str, Any] = {"role": role, "content": message.content}
        if message.reasoning is not None:
            out["reasoning_content"] = message.reasoning
            if self._thinking and not message.content:  # harmony's name for it, which excludes a content
                out["thinking"] = message.reasoning
        if message.tool_calls:
            out["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments)}}
                for c in message.tool_calls
            ]
        others = {"tool_call_id": message.tool_call_id, "name": message.name}
        return out | {key: value for key, value in others.items() if value is not None}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shows(template: Template, turn: Turn) -> bool:
    """Whether the user's text stands in what is rendered."""
    return ASKED in (template.tried([turn]) or "")


def _in_parts(turn: Turn) -> Turn:
    """A turn whose content is a list of parts, as templates of models that see expect it."""
    return {**turn, "content": [{"type": "text", "text": turn["content"]}]}


def _with_text_arguments(turn: Turn) -> Turn:
    """Arguments of past calls as text again, for a template that joins them to text."""
    if "tool_calls" not in turn:
        return turn
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(given, ensure_ascii=False)}}
        if not isinstance(given := call["function"]["arguments"], str)
        else call
        for call in turn["tool_calls"]
    ]
    return {**turn, "tool_calls": calls}


ASKED = "a user turn"
_ASKED: Turn = {"role": "user", "content": ASKED}
_EMPTY: Turn = {"role": "system", "content": ""}
_SYSTEM: Turn = {"role": "system", "content": "a system turn"}
_TOOL: Turn = {
    "type": "function",
    "function": {
        "name": "probe_of_tools",
        "description": "What is known.",
        "parameters": {
            "type": "object",
            "properties": {"key": {"type": "string", "description": "which one"}},
            "required": ["key"],
        },
    },
}
