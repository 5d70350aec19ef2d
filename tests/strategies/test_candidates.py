"""Searches without a checker come to several ends and choose between them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies import strategies
from reason_engine.strategies.search.tree import Thought, apart, elsewhere
from reason_engine.strategies.tree_of_thoughts import TreeOfThoughts
from reason_engine.types import Limits, Problem
from tests.strategies.chat import ASKED, chat, chatter, solution

SEARCHES = [
    ("tree-of-thoughts", {}),
    ("tree-of-thoughts", {"search": "breadth"}),
    ("tree-of-thoughts", {"evaluate": "likelihood"}),
    ("beam-search", {"n": 8, "m": 2}),
    ("mcts", {}),
    ("mcts", {"evaluate": "value"}),
]
every_search = pytest.mark.parametrize(("name", "fields"), SEARCHES)


async def search(name: str, fields: dict[str, Any], engine: Scripted, asked: Problem = ASKED) -> Outcome:
    return await solve(strategies.get(name).model_validate(fields), asked, engine)


@every_search
async def test_several_ends_vote(name: str, fields: dict[str, Any]) -> None:
    outcome = await search(name, fields, chatter())
    assert outcome.answer.value == "5"
    assert sum(vote.count for vote in outcome.answer.votes) >= 3
    assert outcome.answer.confidence is not None
    assert outcome.stopped == "done"


@every_search
async def test_a_step_is_a_paragraph(name: str, fields: dict[str, Any]) -> None:
    engine = chatter()
    outcome = await search(name, fields, engine)
    assert {request.sampling.stop for request in engine.log} <= {("\n\n",), ()}
    assert outcome.answer.path is not None
    assert outcome.answer.path.text in {"\n\n".join(solution(kind, True)) for kind in range(10)}


async def test_ends_lie_below_different_first_steps() -> None:
    outcome = await search("tree-of-thoughts", {"candidates": 3}, chatter())
    visits = [node for node in outcome.trace.nodes if node.name.startswith("visit")]
    ended = [node.id for node in visits if any("boxed" in child[0] for child in node.notes["children"])]
    firsts = {n.prefill[:40] for n in outcome.trace.nodes if n.parent in ended and "boxed" in n.text}
    assert len(ended) == len(firsts) == 3


async def test_the_best_is_the_end_of_highest_value() -> None:
    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        return [0.99, 0.01] if "way 4" in prompt or "way 9" in prompt else [0.05, 0.95]

    fields = {"k": 16, "choose": "best", "candidates": 8, "threshold": 0.0}
    outcome = await search("tree-of-thoughts", fields, Scripted(chat, choose=choose))
    assert outcome.answer.value == "6"


async def test_a_verifier_chooses_the_best_and_without_one_they_vote() -> None:
    by_verifier = await search("tree-of-thoughts", {"verifier": "process-rules"}, chatter())
    assert by_verifier.answer.votes == ()
    assert max(node.n for node in (await drawn_by({"verifier": "process-rules"})).log) == 8
    by_value = await search("tree-of-thoughts", {}, chatter())
    assert by_value.answer.votes
    assert max(node.n for node in (await drawn_by({})).log) == 4


async def drawn_by(fields: dict[str, Any]) -> Scripted:
    engine = chatter()
    await search("tree-of-thoughts", fields, engine)
    return engine


async def test_an_end_without_an_answer_has_no_vote_but_counts() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if "\\boxed{" in prompt.rpartition("<assistant>\n")[2]:
            return "?}"
        return "I cannot tell you that." if index == 0 else "The final answer is \\boxed{5}."

    outcome = await search("tree-of-thoughts", {"candidates": 1, "k": 4, "evaluate": "likelihood"}, Scripted(reply))
    assert outcome.answer.value == "5"
    assert [vote.count for vote in outcome.answer.votes] == [3]
    assert outcome.answer.confidence == pytest.approx(0.75)


@every_search
@pytest.mark.parametrize("cap", [90, 200, 400])
async def test_a_token_budget_leaves_an_answer(name: str, fields: dict[str, Any], cap: int) -> None:
    engine = chatter()
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, engine, limits=Limits(tokens=cap))
    assert engine.generated <= cap
    assert outcome.answer.value in ("5", "6")


@pytest.mark.parametrize("bad", [{"candidates": 0}, {"candidates": 65}, {"choose": "first"}, {"inside_thoughts": "so"}])
def test_bad_fields_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TreeOfThoughts.model_validate(bad)


def test_the_stack_turns_to_another_first_step() -> None:
    def at(*steps: str, value: float) -> Thought:
        return Thought(steps, "/".join(steps), value=value)

    stack = [at("b", value=0.4), at("c", value=0.6), at("a", "x", value=0.9)]
    assert elsewhere(stack, [at("a", "y", value=1)])[-1] == stack[1]
    assert elsewhere(stack, [at("a", value=1), at("b", value=1), at("c", value=1)]) == stack
    assert elsewhere([], [at("a", value=1)]) == []


def test_states_far_apart_come_first() -> None:
    states = [Thought(("a", "x"), value=0.9), Thought(("a", "y"), value=0.8), Thought(("b",), value=0.1)]
    assert apart(states, 2) == [states[0], states[2]]
    assert apart(states, 9) == [states[0], states[2], states[1]]
    assert apart([], 2) == []
