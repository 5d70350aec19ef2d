"""Reasoning and tool calls inside a path's text: written between the marks of the model, and read out again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping

from reason_engine.contracts import Parsed
from reason_engine.types import ModelInfo, ToolCall


def parse(text: str, *, opened: bool, info: ModelInfo) -> Parsed:
    """The inverse of `ResponseReader`. `opened`: the prompt ends inside the reasoning, so the text begins there.

    A tool call that is not valid JSON stays part of the content.
    """
    reasoning = None
    if opened or text.lstrip().startswith(info.think_start):
        inside = text if opened else text.lstrip()[len(info.think_start) :]
        reasoning, _, text = inside.partition(info.think_end)
    calls: list[ToolCall] = []
    content, *rest = text.split(info.tool_start)
    for part in rest:
        inside, end, after = part.partition(info.tool_end)
        call = _call(inside, len(calls)) if end else None
        if call is None:
            content += info.tool_start + part
        else:
            calls.append(call)
            content += after if after.strip() else ""
    return Parsed(content.strip(), reasoning.strip() if reasoning is not None else None, tuple(calls))


def call_text(call: Mapping[str, str], info: ModelInfo) -> str:
    """A call as the model would have written it."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = call["arguments"]  # kept as the model wrote it; parse gives it back unchanged
    inside = json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)
    return f"\n{info.tool_start}\n{inside}\n{info.tool_end}"


def _call(text: str, position: int) -> ToolCall | None:
    try:
        found = json.loads(text)
        name, arguments = found["name"], found["arguments"]
    except (ValueError, KeyError, TypeError):
        return None
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(f"call_{uuid.uuid5(uuid.NAMESPACE_OID, f'{position}{text}').hex[:24]}", str(name), arguments)
