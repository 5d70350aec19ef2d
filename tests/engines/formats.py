"""Tools, JSON schemas and conversations under every strategy, as one class of tests for engines with a grammar.

A module subclasses `FormatContract` and offers a fixture `engine`: a started one, whatever its model says.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from reason_engine.contracts import Engine
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Message, Problem, Sampling, Structured

SMALL: dict[str, dict[str, Any]] = {
    "self-consistency": {"n": 3},
    "best-of-n": {"n": 3},
    "confidence": {"n": 3, "warmup": 2},
    "beam-search": {"n": 4, "m": 2, "depth": 2, "step_tokens": 8},
    "mcts": {"simulations": 3, "k": 2, "step_tokens": 8},
    "tree-of-thoughts": {"k": 2, "visits": 2, "step_tokens": 8},
    "self-refine": {"rounds": 1},
}
"""Sizes that keep a search by a random model short."""
ANSWER = {
    "type": "object",
    "properties": {"kind": {"enum": ["fruit", "tool"]}, "ripe": {"type": "boolean"}},
    "required": ["kind", "ripe"],
    "additionalProperties": False,
}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": {**ANSWER, "properties": properties}}}
    for name, properties in (
        ("pick", ANSWER["properties"]),
        ("drop", {"kind": {"enum": ["leaf"]}, "ripe": {"type": "boolean"}}),
    )
)
every_strategy = pytest.mark.parametrize("name", list(strategies))


async def ask(engine: Engine, name: str, problem: Problem) -> Outcome:
    strategy = strategies.get(name).model_validate(SMALL.get(name, {}))
    return await solve(
        strategy,
        problem,
        engine,
        profile=Profile(),
        limits=Limits(tokens=6000, samples=200),
        sampling=Sampling(max_tokens=120),
        seed=3,
    )


class FormatContract:
    """Every strategy answers in the form that is asked for."""

    @every_strategy
    async def test_the_content_is_json_of_the_schema(self, engine: Engine, name: str) -> None:
        problem = Problem("Is it ripe?", structured=Structured(json_schema=json.dumps(ANSWER)))
        outcome = await ask(engine, name, problem)
        found = json.loads(outcome.content)
        assert set(found) == {"kind", "ripe"} and found["kind"] in ("fruit", "tool")
        assert json.loads(outcome.answer.value or "") == found
        assert outcome.finish_reason == "stop"

    @every_strategy
    async def test_a_tool_is_called_where_one_must_be(self, engine: Engine, name: str) -> None:
        outcome = await ask(engine, name, Problem("Pick it.", tools=TOOLS, tool_choice="required"))
        (call,) = outcome.tool_calls
        assert call.name in ("pick", "drop")
        assert json.loads(call.arguments)["kind"] in (("fruit", "tool") if call.name == "pick" else ("leaf",))
        assert outcome.finish_reason == "tool_calls"
        assert outcome.content == ""

    async def test_the_named_tool_is_the_one(self, engine: Engine) -> None:
        for name in ("pick", "drop"):
            choice = {"type": "function", "function": {"name": name}}
            outcome = await ask(engine, "direct", Problem("Go.", tools=TOOLS, tool_choice=choice))
            assert [call.name for call in outcome.tool_calls] == [name]

    @every_strategy
    async def test_earlier_turns_are_in_every_prompt(self, engine: Engine, name: str) -> None:
        history = (Message("user", "My number is 417."), Message("assistant", "Noted."))
        outcome = await ask(engine, name, Problem("What is it?", history))
        prompts = [node.prompt for node in outcome.trace.nodes if node.role == "path"]
        assert prompts and all("My number is 417." in prompt for prompt in prompts)
