"""What a path's text says: its normalised answer, and the reasoning and content that a client sees of it.

The form that a request asks of its final answer: a schema, or a call of one of its tools.

`tool_choice` `required`, or a function by name, is held by grammar: the answer begins with the template's mark of a
call, and what follows is JSON of one of the allowed calls. A model that thinks by itself does not think first then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from reason_engine.answers import find, normalise
from reason_engine.runtime.run import Run
from reason_engine.runtime.stream_text import Borders
from reason_engine.types import Problem, Structured

PLAIN = frozenset({"direct"})
"""Strategies whose text is all content: no answer marker is looked for."""


def read_answer(run: Run, text: str, *, tools: bool = False) -> str | None:
    """The answer that a vote counts; None where the text gives none.

    A tool call counts as its name and arguments, a JSON answer as its canonical text, an answer of a task with a
    checker as its text, any other as `answers.find` and `answers.normalise` read it.
    """
    parsed = run.engine.parse(text)
    if tools and parsed.tool_calls:
        calls = [[call.name, _canonical(call.arguments)] for call in parsed.tool_calls]
        return json.dumps(calls, sort_keys=True)
    if run.problem.structured is not None:
        return _canonical(parsed.content.strip()) or None
    value = find(parsed.content, run.profile.answer_marker)
    if value is None:
        return None
    return " ".join(value.split()) if run.checker else normalise(value)


def borders_of(run: Run, prompt: str) -> Borders:
    """Where reasoning ends in this run's paths."""
    info = run.engine.info
    marker = None if run.strategy in PLAIN or run.problem.structured else run.profile.answer_marker
    opened = info.thinks and prompt.rstrip().endswith(info.think_start)
    return Borders(
        info.think_start if info.thinks else None,
        info.think_end if info.thinks else None,
        None if info.thinks else marker,
        opened,
        run.sampling.stop,
        info.tool_start if run.problem.tools else None,
    )


def _canonical(text: str) -> str:
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text


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
