"""Thinking made longer and cut short, on models that think apart and on models that do not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.budget_forcing import BudgetForcing
from reason_engine.types import Limits, Problem, Sampling

ROUNDS = ("1 + 1 = 3\nAnswer: 3", "Let me see.\n1 + 1 = 2\nAnswer: 2", "That is right.\nAnswer: 2")


def plain(prompt: str, seed: int, index: int) -> str:
    """Sees its mistake at the second look; says the number where the answer is asked for."""
    turn = prompt.rpartition("<assistant>\n")[2]
    if turn.endswith("Answer:"):
        return " 2"
    return ROUNDS[min(turn.count("Wait"), 2)]


def thinker(prompt: str, seed: int, index: int) -> str:
    turn = prompt.rpartition("<think>\n")[2]
    if "</think>" in turn:
        return f"Answer: {2 if 'Wait' in turn else 3}"
    return "I think it over once more \n</think>\nAnswer: 7"


def text(engine: Scripted, request: int) -> str:
    prompt = engine.log[request].prompt
    return prompt if isinstance(prompt, str) else engine.detokenize(prompt)


def notes(outcome: Outcome) -> tuple[object, object, object]:
    root = outcome.trace.nodes[0].notes
    return root["waits"], root["thinking"], root["forced"]


async def test_the_end_is_suppressed_and_it_thinks_on() -> None:
    made = Scripted(plain)
    outcome = await solve(BudgetForcing(rounds=1), Problem("1 + 1?"), made)
    assert (outcome.answer.value, outcome.content) == ("2", "Answer: 2")
    assert text(made, 1).endswith("<assistant>\n1 + 1 = 3\nAnswer: 3\nWait")
    assert notes(outcome) == (1, 19, False)
    assert outcome.usage.completion == made.generated == 19  # what was appended is prompt
    assert [request.n for request in made.log] == [1, 1]
    assert "Let me see." in str(outcome.reasoning)


async def test_what_is_appended_is_the_requests_else_the_profiles() -> None:
    made = Scripted(plain)
    await solve(BudgetForcing(wait=" Wait, so"), Problem("?"), made, profile=Profile(wait="\nWait."))
    assert text(made, 1).endswith("Answer: 3 Wait, so")
    await solve(BudgetForcing(), Problem("?"), made, profile=Profile(wait="\nWait."))
    assert text(made, 3).endswith("Answer: 3\nWait.")


async def test_min_tokens_suppress_every_end_before_them() -> None:
    outcome = await solve(BudgetForcing(rounds=0, min_tokens=20), Problem("?"), Scripted(plain))
    assert notes(outcome)[:2] == (2, 25)
    outcome = await solve(BudgetForcing(rounds=0, min_tokens=8), Problem("?"), Scripted(plain))
    assert notes(outcome)[:2] == (0, 8)
    outcome = await solve(BudgetForcing(rounds=0, min_tokens=500), Problem("?"), Scripted(lambda p, s, i: ""))
    assert notes(outcome)[:2] == (64, 65)  # a model that says nothing is not asked for ever


async def test_thinking_is_cut_at_its_cap_and_the_answer_forced() -> None:
    made = Scripted(plain)
    outcome = await solve(BudgetForcing(max_thinking=3), Problem("?"), made)
    assert (outcome.content, outcome.answer.value, outcome.finish_reason) == ("Answer: 2", "2", "stop")
    assert text(made, 1).endswith("<assistant>\n1 + 1\nAnswer:")
    assert notes(outcome) == (0, 3, True)
    assert outcome.usage_by_stage["think"].completion == 3


async def test_the_cap_holds_over_all_rounds() -> None:
    made = Scripted(plain)
    outcome = await solve(BudgetForcing(rounds=9, max_thinking=12), Problem("?"), made)
    assert outcome.usage_by_stage["think"].completion == 12
    assert notes(outcome) == (1, 12, True)
    assert outcome.answer.value == "2"


async def test_the_requests_own_limit_bounds_the_whole_path() -> None:
    made = Scripted(plain)
    outcome = await solve(BudgetForcing(rounds=9), Problem("?"), made, sampling=Sampling(max_tokens=11))
    assert outcome.usage.completion == made.generated == 11
    assert outcome.answer.value == "3"


async def test_the_requests_own_limit_bounds_the_forced_answer() -> None:
    made = Scripted(lambda p, s, i: " 2, and so on" if p.endswith("Answer:") else "1 + 1 = 2 is so")
    asked = BudgetForcing(max_thinking=3)
    outcome = await solve(asked, Problem("?"), made, sampling=Sampling(max_tokens=4))
    assert (outcome.usage.completion, outcome.content) == (4, "Answer: 2,")


async def test_a_round_without_an_answer_leaves_the_one_before() -> None:
    made = Scripted(lambda p, s, i: "hmm" if "Wait" in p else "Answer: 3")
    outcome = await solve(BudgetForcing(rounds=3), Problem("?"), made)
    assert (outcome.content, notes(outcome)[0]) == ("Answer: 3", 3)


async def test_a_full_context_leaves_the_answer() -> None:
    made = Scripted(plain, context=34)
    outcome = await solve(BudgetForcing(rounds=9), Problem("?"), made)
    assert outcome.answer.value in ("2", "3")
    assert outcome.usage.completion == made.generated


async def test_a_spent_budget_hands_in_the_last_answer() -> None:
    made = Scripted(plain)
    outcome = await solve(BudgetForcing(rounds=9), Problem("?"), made, limits=Limits(tokens=24))
    assert (outcome.answer.value, outcome.stopped) == ("2", "budget-tokens")
    assert outcome.usage.completion == made.generated == 24


async def test_a_model_that_thinks_has_its_end_mark_suppressed() -> None:
    made = Scripted(thinker, thinks=True)
    outcome = await solve(BudgetForcing(rounds=1), Problem("?"), made)
    assert (outcome.answer.value, outcome.content) == ("2", "Answer: 2")
    assert text(made, 1).endswith("once more \n\nWait")
    assert text(made, 2).count("</think>") == 1
    assert outcome.usage.completion == made.generated
    assert set(outcome.usage_by_stage) == {"think", "answer"}


async def test_a_model_that_thinks_is_cut_by_its_end_mark() -> None:
    made = Scripted(thinker, thinks=True)
    outcome = await solve(BudgetForcing(rounds=0, max_thinking=4), Problem("?"), made)
    assert text(made, 1).endswith("<think>\nI think it over\n</think>\n\n")
    assert (outcome.content, notes(outcome)) == ("Answer: 3", (0, 4, True))


async def test_thinking_that_was_turned_off_is_no_thinking() -> None:
    made = Scripted(plain, thinks=True)
    outcome = await solve(BudgetForcing(rounds=1), Problem("?"), made, think=False)
    assert outcome.answer.value == "2"
    assert made.log[0].sampling.stop == ()


async def test_a_cut_inside_thought_shows_no_content() -> None:
    made = Scripted(thinker, thinks=True)
    outcome = await solve(BudgetForcing(), Problem("?"), made, limits=Limits(tokens=10))
    assert (outcome.stopped, outcome.finish_reason) == ("budget-tokens", "length")
    assert outcome.usage.completion == made.generated == 10


async def test_an_engine_that_cannot_continue_is_refused_before_a_token_is_spent() -> None:
    made = Scripted(caps=Capabilities(logprobs=5))
    with pytest.raises(CapabilityMissing, match="continuation"):
        await solve(BudgetForcing(), Problem("?"), made)
    assert made.requests == 0


def test_bad_fields() -> None:
    for fields in ({"rounds": -1}, {"rounds": 65}, {"min_tokens": 0}, {"max_thinking": 0}, {"wait": ""},
                   {"min_tokens": 9, "max_thinking": 8}):  # fmt: skip
        with pytest.raises(ValidationError):
            BudgetForcing.model_validate(fields)
