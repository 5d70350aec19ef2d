"""Critique and revision: what ends them, what is kept, and who may tell right from wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Critique, Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.self_refine import SelfRefine
from reason_engine.types import Limits, Problem
from tests.strategies.puzzle import PROFILE, RIGHT
from tests.strategies.puzzle import problem as puzzle

NANO = Profile(
    critique=Critique(
        prompt="{problem}\nProposed solution:\n{solution}\nCheck this solution.",
        accepts=r"Every line is right\.",
        revises=True,
        from_line=r"Line (\d+) is wrong",
    )
)
DRAFT = "12 + 25 = 37\n37 - 7 = 40\nAnswer: 40"


def model(
    drafts: str, critique: str | Callable[[str], str], revision: str = "Answer: none", **options: object
) -> Scripted:
    """Knows by the prompt what it is asked for."""

    def reply(prompt: str, seed: int, index: int) -> str:
        if "Write the corrected solution" in prompt:
            return revision
        if "Proposed solution" in prompt or "proposed solution" in prompt or "Is it right" in prompt:
            return critique if isinstance(critique, str) else critique(prompt)
        return drafts

    return Scripted(reply, **options)  # type: ignore[arg-type]


def outcomes(outcome: Outcome) -> list[str]:
    return [node.notes["outcome"] for node in outcome.trace.nodes if "outcome" in node.notes]


async def test_it_is_criticised_and_revised_until_a_critique_accepts() -> None:
    made = model(
        "Answer: 5",
        lambda prompt: "Fine.\nVerdict: right" if "Answer: 4" in prompt else "2 + 2 is 4.\nVerdict: wrong",
        "2 + 2 = 4\nAnswer: 4",
    )
    outcome = await solve(SelfRefine(), Problem("2 + 2?"), made)
    assert (outcome.answer.value, outcome.content, outcome.stopped) == ("4", "Answer: 4", "done")
    assert outcomes(outcome) == ["revised", "accepted"]
    assert outcome.trace.nodes[2].notes["ended"] == "accepted"
    assert set(outcome.usage_by_stage) == {"sample", "critique", "revise"}
    texts = [request.prompt for request in made.log]
    assert "2 + 2?" in texts[2] and "Answer: 5" in texts[2] and "2 + 2 is 4." in texts[2]


async def test_a_profile_whose_critique_revises_needs_one_call_a_round_and_keeps_the_lines_before() -> None:
    made = model(
        DRAFT,
        lambda prompt: (
            "Line 2 is wrong.\n37 - 7 = 30\nAnswer: 30" if "40" in prompt else "Every line is right.\nAnswer: 30"
        ),
    )
    outcome = await solve(SelfRefine(), Problem("Apples?"), made, profile=NANO)
    assert (outcome.answer.value, made.requests) == ("30", 3)
    assert outcomes(outcome) == ["revised", "accepted"]
    shown = str(made.log[2].prompt)
    assert "Apples?\nProposed solution:\n12 + 25 = 37\n37 - 7 = 30\nAnswer: 30\nCheck this solution." in shown


async def test_a_critique_that_goes_row_by_row_keeps_its_rows_out_of_the_revision() -> None:
    profile = Profile(critique=NANO.critique.model_copy(update={"from_line": r"(?m)^(\d+): .*wrong$"}))
    made = model(
        DRAFT,
        lambda prompt: (
            "1: 12 + 25 = 37; 37\n2: 37 - 7 = 30; 40 wrong\n37 - 7 = 30\nAnswer: 30"
            if "40" in prompt
            else "1: 12 + 25 = 37; 37\n2: 37 - 7 = 30; 30\nEvery line is right.\nAnswer: 30"
        ),
    )
    outcome = await solve(SelfRefine(), Problem("Apples?"), made, profile=profile)
    assert (outcome.answer.value, outcomes(outcome)) == ("30", ["revised", "accepted"])
    shown = str(made.log[2].prompt)
    assert "Apples?\nProposed solution:\n12 + 25 = 37\n37 - 7 = 30\nAnswer: 30\nCheck this solution." in shown


@pytest.mark.parametrize("line", ["0", "9", "99999999999999999999"])
async def test_a_line_that_is_not_there_does_no_harm(line: str) -> None:
    made = model(DRAFT, f"Line {line} is wrong.\n1 + 1 = 2\nAnswer: 2")
    outcome = await solve(SelfRefine(rounds=2), Problem("?"), made, profile=NANO)
    assert outcome.answer.value == "2"


async def test_the_requests_prompts_come_first_and_are_literal() -> None:
    made = model("Answer: {problem}", "It is ALL GOOD.")
    strategy = SelfRefine(critique_prompt="{problem} {x} Is it right? {solution}", accepts="all good")
    outcome = await solve(strategy, Problem("Why {solution}?"), made, profile=NANO)
    assert outcomes(outcome) == ["accepted"]
    assert "Why {solution}? {x} Is it right? Answer: {problem}" in str(made.log[1].prompt)


async def test_an_answer_that_stays_ends_it() -> None:
    made = model("Answer: 0.5", "Hm.\nVerdict: wrong", "Answer: 1/2")
    outcome = await solve(SelfRefine(rounds=9), Problem("?"), made)
    assert (outcomes(outcome), made.requests) == (["the answer stays"], 3)
    assert outcome.answer.value == "0.5"


async def test_a_revision_without_an_answer_is_not_taken() -> None:
    outcome = await solve(SelfRefine(), Problem("?"), model("Answer: 5", "Hm.", "I cannot say"))
    assert (outcome.answer.value, outcomes(outcome)) == ("5", ["the revision gives no answer"])


async def test_rounds_bound_it() -> None:
    count = iter(range(100))

    def reply(prompt: str, seed: int, index: int) -> str:
        return "Verdict: wrong" if "look for mistakes" in prompt else f"Answer: {next(count)}"

    outcome = await solve(SelfRefine(rounds=2), Problem("?"), Scripted(reply))
    assert (outcome.answer.value, outcomes(outcome)) == ("2", ["revised", "revised"])
    assert outcome.trace.nodes[2].notes["ended"] == "all rounds done"


async def test_a_verifier_that_likes_the_revision_no_better_keeps_the_draft() -> None:
    made = model("Answer: 4", "Verdict: wrong", "Answer: 5")
    strategy = SelfRefine.model_validate({"verifier": {"name": "exact", "params": {"reference": "4"}}})
    outcome = await solve(strategy, Problem("?"), made)
    assert (outcome.answer.value, outcome.answer.confidence) == ("4", 1.0)
    assert outcomes(outcome) == ["the verifier likes the revision no better"]


async def test_a_checker_ends_it_at_a_right_answer_without_a_critique() -> None:
    made = Scripted(lambda p, s, i: "\n".join(RIGHT))
    outcome = await solve(SelfRefine(), puzzle(), made, profile=PROFILE)
    assert (made.requests, outcomes(outcome)) == (1, ["the checker finds it right"])


async def test_a_checker_lets_no_wrong_answer_be_accepted() -> None:
    made = model("Answer: 4 + 5 + 6 + 10 = 24", "Verdict: right")
    outcome = await solve(SelfRefine(rounds=2), puzzle(), made, profile=PROFILE)
    assert outcomes(outcome) == ["accepted, but the checker finds it wrong"] * 2


async def test_several_drafts_are_refined_apart_and_vote() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if "Check this solution" in prompt:
            return "Line 1 is wrong.\nAnswer: 4" if "Answer: 5" in prompt else "Every line is right."
        return ("Answer: 5", "Answer: 4", "Answer: 9")[index]

    made = Scripted(reply)
    outcome = await solve(SelfRefine(n=3), Problem("?"), made, profile=NANO)
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 2), ("9", 1)]
    assert outcome.answer.confidence == pytest.approx(2 / 3)
    assert [node.name for node in outcome.trace.nodes if node.name.startswith("draft")] == [
        "draft 0", "draft 1", "draft 2"]  # fmt: skip


async def test_a_spent_budget_keeps_the_draft() -> None:
    made = model("Answer: 5", "so many words that the budget will not bear them at all\nVerdict: wrong")
    outcome = await solve(SelfRefine(), Problem("?"), made, limits=Limits(tokens=8))
    assert (outcome.answer.value, outcome.content) == ("5", "Answer: 5")
    assert outcome.stopped == "budget-tokens"
    assert outcome.usage.completion == made.generated == 8


async def test_drafts_whose_critique_the_budget_refuses_still_vote() -> None:
    made = model("Answer: 5", "Every line is right.")
    outcome = await solve(SelfRefine(n=3), Problem("?"), made, profile=NANO, limits=Limits(samples=4))
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("5", 3)]
    assert outcomes(outcome).count("no budget left") == 2
    assert outcome.stopped == "budget-samples"


async def test_a_full_context_keeps_the_draft() -> None:
    made = model("so it is " * 20 + "\nAnswer: 5", "Verdict: right", context=90)
    outcome = await solve(SelfRefine(), Problem("?"), made)
    assert (outcome.answer.value, outcomes(outcome)) == ("5", ["no room left"])


async def test_a_thinking_models_solution_is_what_follows_its_thoughts() -> None:
    made = model("hidden </think> Answer: 5", "no mistakes here </think> Verdict: right", thinks=True)
    outcome = await solve(SelfRefine(), Problem("?"), made)
    assert outcomes(outcome) == ["accepted"]
    assert "hidden" not in str(made.log[1].prompt)


def test_bad_fields() -> None:
    bad = ({"rounds": 0}, {"n": 65}, {"critique_prompt": "Is it right?"}, {"revise_prompt": "{problem}"},
           {"accepts": ""})  # fmt: skip
    for fields in bad:
        with pytest.raises(ValidationError):
            SelfRefine.model_validate(fields)
