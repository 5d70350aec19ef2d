"""The form of an answer that must be a call of a tool, or JSON of a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from reason_engine.types import Problem, Structured


def answer_form(problem: Problem) -> Structured | None:
    """What the text of the final answer must be: JSON of a schema, or of a call of one of the request's tools; None
    where it is free.

    `tool_choice` `required`, or a function by name, is held by grammar: the answer begins with the template's mark of a
    call, and what follows is JSON of one of the allowed calls. A model that thinks by itself does not think first then.
    """
    if problem.structured or not must_call_tool(problem):
        return problem.structured
    only = problem.tool_choice
    named = cast(str, only["function"]["name"]) if isinstance(only, Mapping) else None
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in problem.tools
        if named in (None, tool["function"]["name"])
    ]
    return Structured(json_schema=json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}))


def must_call_tool(problem: Problem) -> bool:
    """Whether the answer has to be a call of a tool."""
    return bool(problem.tools) and problem.tool_choice not in (None, "auto", "none")
