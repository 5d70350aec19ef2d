"""Tree of thoughts: what is particular to it."""

from __future__ import annotations

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.tree_of_thoughts import TreeOfThoughts
from reason_engine.types import Problem
from tests.strategies.puzzle import LOST, PROFILE, QUESTION, RIGHT, hope, play, player, problem


@pytest.mark.parametrize("search", ["breadth", "depth"])
async def test_the_value_model_leads_past_the_lost_way(search: str) -> None:
    outcome = await solve(TreeOfThoughts(search=search), problem(), player(), profile=PROFILE)  # pyright: ignore
    assert outcome.answer.value == RIGHT[-1].removeprefix("Answer: ")
    assert outcome.answer.confidence == 1.0
    expanded = {node.text for node in outcome.trace.nodes if node.stage == "propose"}
    assert LOST[0] + "\n" in expanded
    assert LOST[1] + "\n" not in expanded


async def test_depth_first_comes_back_from_a_dead_end() -> None:
    def misled(prompt: str, options: tuple[str, ...]) -> list[float]:
        return [0.9, 0.1] if "4 5 16" in prompt else [0.5, 0.5]

    engine = Scripted(play, choose=misled)
    outcome = await solve(TreeOfThoughts(threshold=0.1), problem(), engine, profile=PROFILE)
    assert outcome.answer.value == "5 * (10 - 4) - 6 = 24"
    visited = [n.text for n in outcome.trace.nodes if n.stage == "propose"]
    assert visited.index(LOST[1] + "\n") < visited.index(RIGHT[1] + "\n")


async def test_visits_bound_the_search() -> None:
    outcome = await solve(TreeOfThoughts(visits=2), problem(), player(), profile=PROFILE)
    assert sum(node.name.startswith("visit") for node in outcome.trace.nodes) == 2


async def test_equal_states_are_valued_once() -> None:
    engine = player()
    outcome = await solve(TreeOfThoughts(k=16), problem(), engine, profile=PROFILE)
    distinct = {
        score["by"] + str(node.text)
        for node in outcome.trace.nodes
        for score in node.scores
        if score["by"] == "value" and score["value"] not in (0, 1)
    }
    assert engine.chooses == len(distinct)


async def test_without_a_checker_the_first_finished_thought_is_the_answer() -> None:
    outcome = await solve(
        TreeOfThoughts(), problem(), player(), profile=Profile(ask=PROFILE.ask, value_prompt="Can {state}?")
    )
    assert outcome.answer.path is not None
    assert outcome.content.startswith("Answer:")


async def test_prompts_are_filled_literally() -> None:
    seen: list[str] = []

    def look(prompt: str, options: tuple[str, ...]) -> list[float]:
        seen.append(prompt)
        return hope(prompt, options)

    strategy = TreeOfThoughts(value_prompt="{problem} {{7*7}} {state} {question.__class__}", visits=1)
    question = Problem(QUESTION + " {state}")
    await solve(strategy, question, Scripted(play, choose=look), profile=PROFILE)
    assert any("{state} {{7*7}} 5 6 6 make 24 {question.__class__}" in prompt for prompt in seen)


async def test_a_missing_capability_is_told_before_anything_runs() -> None:
    engine = Scripted(play, caps=Capabilities(logprobs=0))
    with pytest.raises(CapabilityMissing, match="choose"):
        await solve(TreeOfThoughts(), problem(), engine, profile=PROFILE)
    assert engine.requests == 0
