"""What votes: tool calls, JSON answers and choices, under every strategy that votes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from reason_engine.contracts import Parsed
from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.types import Problem, Structured, ToolCall

VOTERS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("self-consistency", {"n": 5}),
    ("self-consistency", {"n": 5, "adaptive": True, "confidence": 0.99}),
    ("best-of-n", {"n": 5, "choose": "vote"}),
    ("best-of-n", {"n": 5, "choose": "vote", "adaptive": True, "confidence": 0.99}),
    ("confidence", {"n": 5, "warmup": 5, "keep": 1.0}),
    ("confidence", {"n": 5, "warmup": 3, "keep": 1.0, "confidence": 0.99}),
    ("self-refine", {"n": 5}),
)
every_voter = pytest.mark.parametrize(("name", "fields"), VOTERS, ids=lambda value: str(value))
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Caller(Scripted):
    """Reads `<tool_call>{…}` as a call."""

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        found = re.search(r"<tool_call>(.*)</tool_call>", text)
        if not found:
            return Parsed(text)
        call = json.loads(found[1])
        return Parsed("", None, (ToolCall("c", call["name"], json.dumps(call["arguments"])),))


def engine(texts: Sequence[str], kind: type[Scripted] = Scripted) -> Scripted:
    drawn = iter(range(1000))

    def reply(prompt: str, seed: int, index: int) -> str:
        return "Verdict: right" if "look for mistakes" in prompt else texts[next(drawn) % len(texts)]

    return kind(reply)


def call(**arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': 'weather', 'arguments': arguments})}</tool_call>"


@every_voter
async def test_tool_calls_vote_by_name_and_arguments(name: str, fields: Mapping[str, Any]) -> None:
    texts = [call(city="Rome", day=1), call(city="Oslo", day=1), call(day=1, city="Oslo"), call(city="Rome", day=2),
             call(city="Oslo", day=1)]  # fmt: skip
    made = engine(texts, Caller)
    outcome = await solve(strategies.get(name).model_validate(fields), Problem("Weather?", tools=(TOOL,)), made)
    assert [vote.count for vote in outcome.answer.votes] == [3, 1, 1]
    assert outcome.answer.value == json.dumps([["weather", '{"city": "Oslo", "day": 1}']])
    assert outcome.finish_reason == "tool_calls"
    assert json.loads(outcome.tool_calls[0].arguments) == {"city": "Oslo", "day": 1}
    assert outcome.content == ""


@every_voter
async def test_json_answers_vote_by_their_canonical_text(name: str, fields: Mapping[str, Any]) -> None:
    texts = ['{"x": 1, "y": "a"}', '{"y": "a",  "x": 2}', '{"y": "a", "x": 2}', '{"x": 2.5}', '{"x": 2, "y": "a"}']
    problem = Problem("x?", structured=Structured(json_schema='{"type": "object"}'))
    outcome = await solve(strategies.get(name).model_validate(fields), problem, engine(texts))
    assert next((vote.answer, vote.count) for vote in outcome.answer.votes) == ('{"x": 2, "y": "a"}', 3)
    assert json.loads(outcome.content) == {"x": 2, "y": "a"}


@every_voter
async def test_choices_vote_by_their_letter(name: str, fields: Mapping[str, Any]) -> None:
    texts = ["Answer: A", "so\nAnswer: (B)", "Answer: **b**", "Answer: C", "The answer is B."]
    outcome = await solve(strategies.get(name).model_validate(fields), Problem("A, B or C?"), engine(texts))
    assert next((vote.answer, vote.count) for vote in outcome.answer.votes) == ("B", 3)
    assert outcome.answer.value == "B"


async def test_json_is_not_read_as_mathematics() -> None:
    texts = ['{"x": "~/1"}', '{"x": " /1"}', '{"x": "~/1"}']
    problem = Problem("x?", structured=Structured(json_object=True))
    outcome = await solve(strategies.get("self-consistency").model_validate({"n": 3}), problem, engine(texts))
    assert [(v.answer, v.count) for v in outcome.answer.votes] == [('{"x": "~/1"}', 2), ('{"x": " /1"}', 1)]
