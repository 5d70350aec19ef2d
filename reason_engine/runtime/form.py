"""The form that a request asks of its final answer: a schema, or a call of one of its tools.

`tool_choice` `required`, or a function by name, is held by grammar: the answer begins with the template's mark of a
call, and what follows is JSON of one of the allowed calls. A model that thinks by itself does not think first then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from reason_engine.types import Problem, Structured


def form_of(problem: Problem) -> Structured | None:
    """What the text of the final answer must be; None where it is free."""
    return problem.structured or _forced_call(problem)


def must_call(problem: Problem) -> bool:
    """Whether the answer has to be a call of a tool."""
    return bool(problem.tools) and problem.tool_choice not in (None, "auto", "none")


def _forced_call(problem: Problem) -> Structured | None:
    if not must_call(problem):
        return None
    only = problem.tool_choice
    named = cast(str, only["function"]["name"]) if isinstance(only, Mapping) else None
    calls = [_call(tool["function"]) for tool in problem.tools if named in (None, tool["function"]["name"])]
    return Structured(json_schema=json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls}))


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
