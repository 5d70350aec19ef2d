"""Searches and models that think by themselves: whole thoughts first, or none, and steps inside only if asked for."""

from __future__ import annotations

from typing import Any

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies import strategies
from reason_engine.types import GenerateRequest, Limits
from tests.strategies.chat import ASKED

THOUGHT = (
    "Let me think about apples.\n\nThey are \\boxed{9}, no.\n\nAnswer: 8\n\nIt is 5, I am quite sure.\n</think>\n\n"
)
ANSWER = "We add what she buys, 3 + 4 = 7.\n\nWe take away what she eats, 7 - 2 = 5.\n\nIt is \\boxed{5} apples."
SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("tree-of-thoughts", {}),
    ("tree-of-thoughts", {"search": "breadth"}),
    ("tree-of-thoughts", {"generate": "propose"}),
    ("beam-search", {"n": 4, "m": 2}),
    ("mcts", {}),
    ("mcts", {"evaluate": "value"}),
]
every_search = pytest.mark.parametrize(("name", "fields"), SEARCHES)


def thinker(thought: str = THOUGHT, asked: list[str] | None = None, **engine: Any) -> Scripted:
    """Goes on with its thought, then with its answer."""

    def reply(prompt: str, seed: int, index: int) -> str:
        turn = prompt.rpartition("<assistant>\n")[2].removeprefix("<think>\n")
        opened = prompt.rpartition("<assistant>\n")[2].startswith("<think>\n")
        if not opened:
            return ANSWER[len(turn) :] if ANSWER.startswith(turn) else ANSWER
        if "</think>" not in turn:
            return (thought + ANSWER)[len(turn) :] if thought.startswith(turn) else "and so on " * 20
        return ANSWER[len(turn.rpartition("</think>")[2].lstrip("\n")) :]

    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        (asked if asked is not None else []).append(prompt)
        return [0.1, 0.9] if "banana" in prompt or "2 + 2 = 5" in prompt else [0.9, 0.1]

    return Scripted(reply, thinks=True, choose=choose, context=engine.pop("context", 4096), **engine)


async def search(name: str, fields: dict[str, Any], engine: Scripted, **run: Any) -> Outcome:
    return await solve(strategies.get(name).model_validate(fields), ASKED, engine, **run)


def inside(engine: Scripted, request: GenerateRequest) -> bool:
    """Whether a request goes on inside a thought."""
    text = request.prompt if isinstance(request.prompt, str) else engine.detokenize(request.prompt)
    turn = str(text).rpartition("<assistant>\n")[2]
    return turn.startswith("<think>") and "</think>" not in turn


@every_search
async def test_no_step_ends_inside_a_thought(name: str, fields: dict[str, Any]) -> None:
    engine = thinker()
    outcome = await search(name, fields, engine)
    assert all("\n\n" not in request.sampling.stop for request in engine.log if inside(engine, request))
    assert outcome.answer.value == "5"
    assert outcome.content.rstrip().endswith("\\boxed{5} apples.")
    assert any("\n\n" in request.sampling.stop for request in engine.log) or fields.get("generate") == "propose"


async def test_several_thoughts_are_drawn_and_searched_behind() -> None:
    engine = thinker()
    outcome = await search("beam-search", {"n": 8, "m": 2}, engine)
    first = engine.log[0]
    assert (first.n, first.sampling.stop) == (4, ("</think>",))
    stages = {node.stage for node in outcome.trace.nodes if node.role == "path"}
    assert "think" in stages and "propose" in stages


async def test_what_is_valued_is_the_text_after_the_thought() -> None:
    asked: list[str] = []
    await search("mcts", {"evaluate": "value"}, thinker(asked=asked))
    assert any("3 + 4 = 7" in prompt for prompt in asked)
    assert not any("quite sure" in prompt for prompt in asked)


async def test_a_thought_that_finds_no_end_is_ended() -> None:
    engine = thinker("I think and think " * 400, context=900)
    outcome = await search("tree-of-thoughts", {"k": 2, "candidates": 1}, engine)
    assert outcome.answer.path is not None
    assert "</think>" in outcome.answer.path.text
    assert outcome.answer.value == "5"


async def test_fewer_thoughts_where_the_budget_has_no_room_for_more() -> None:
    engine = thinker()
    outcome = await search("beam-search", {"n": 4, "m": 2}, engine, limits=Limits(tokens=5000))
    assert engine.log[0].n == 1
    assert outcome.answer.value == "5"


@every_search
async def test_a_request_without_thinking_is_searched_from_its_first_line(name: str, fields: dict[str, Any]) -> None:
    engine = thinker()
    outcome = await search(name, fields, engine, think=False)
    assert not any(inside(engine, request) for request in engine.log)
    assert not any("</think>" in request.sampling.stop for request in engine.log)
    assert outcome.answer.value == "5"


async def test_a_template_that_opens_a_thought_anyway_has_it_closed() -> None:
    class Stubborn(Scripted):
        def render_chat(self, messages: Any, *, tools: Any = (), think: bool | None = None, prefill: str = "") -> str:
            return super().render_chat(messages, tools=tools, think=True, prefill=prefill)

    made = thinker()
    engine = Stubborn(made.reply, thinks=True, choose=lambda p, o: [0.1, 0.9] if "banana" in p else [0.9, 0.1])
    outcome = await search("tree-of-thoughts", {"evaluate": "likelihood"}, engine, think=False)
    steps = [request for request in engine.log if "\n\n" in request.sampling.stop]
    assert steps and not any(inside(engine, request) for request in steps)
    assert outcome.answer.value == "5"


async def test_an_engine_that_continues_nothing_draws_whole_answers() -> None:
    engine = thinker(caps=Capabilities(logprobs=0, token_ids=True, choose=True))
    outcome = await search("mcts", {}, engine)
    assert all(not request.sampling.stop for request in engine.log)
    assert outcome.answer.value == "5"


async def test_a_model_that_did_not_think_has_answered() -> None:
    engine = Scripted(lambda prompt, seed, index: ANSWER, thinks=False)
    engine.info = type(engine.info)("scripted", "scripted:x", 4096, True)
    engine.render_chat = lambda messages, *, tools=(), think=None, prefill="": f"<assistant>\n{prefill}"  # type: ignore
    outcome = await search("beam-search", {"n": 4, "m": 2}, engine)
    assert outcome.answer.value == "5"


@pytest.mark.parametrize("name", ["tree-of-thoughts", "beam-search", "mcts"])
async def test_steps_inside_the_thought_are_there_for_the_asking(name: str) -> None:
    engine = thinker()
    outcome = await search(name, {"inside_thoughts": True}, engine)
    assert any("\n\n" in request.sampling.stop for request in engine.log if inside(engine, request))
    assert not any("</think>" in request.sampling.stop for request in engine.log)
    # What a thought says in a box is no end.
    assert outcome.answer.value == "5"
