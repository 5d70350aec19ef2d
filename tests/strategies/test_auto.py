"""Auto: which plan it follows, what its stages share, and what the trace says about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.policy import Case, Plan, Policy, Stage
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.auto import Auto
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Limits, Problem, Structured
from tests.strategies.puzzle import PROFILE, RIGHT, player, problem

SURE, UNSURE = -0.001, -2.0
ASKED = Problem("How much is 2 + 2?")
"""A question that has a number for an answer, so that steps are asked for."""


def says(direct: str, steps: str, sure: float) -> Scripted:
    """Answers directly with that certainty; `{n}` in the steps counts what was drawn by steps."""
    drawn = iter(range(1000))

    def reply(prompt: str, seed: int, index: int) -> str:
        return steps.format(n=next(drawn)) if "step by step" in prompt else direct

    return Scripted(reply, logprob=lambda prompt, token: -0.5 if "step by step" in prompt else sure)


def stages(outcome: Outcome) -> list[str]:
    return [node.name for node in outcome.trace.children(0) if node.role == "span"]


def notes(outcome: Outcome) -> Mapping[str, Any]:
    return outcome.trace.nodes[0].notes


def policy(*plans: Plan, task: str | None = None, weights: str = "scripted", direct: float = 2) -> Profile:
    return Profile(auto=Policy(weights=weights, cases=(Case(task=task, direct_tokens=direct, plans=plans),)))


async def test_another_temperature_is_another_draw() -> None:
    vote = Stage(strategy="self-consistency", fields={"n": 2, "temperature": 0.5}, accept=1.0)
    again = Stage(strategy="self-consistency", fields={"n": 4, "temperature": 0.9})
    engine = says("", "so\nAnswer: {n}", SURE)
    await solve(Auto(), ASKED, engine, profile=policy(Plan(stages=(vote, again), tokens=9)))
    assert engine.samples == 6


async def test_a_task_with_a_checker_goes_straight_to_the_search() -> None:
    outcome = await solve(Auto(), problem(), player(), profile=PROFILE)
    assert stages(outcome) == ["1 tree-of-thoughts"]
    assert outcome.answer.value == RIGHT[-1].removeprefix("Answer: ")
    assert notes(outcome)["question"]["task"] == "countdown"


async def test_a_checker_says_whether_an_answer_stands() -> None:
    first = Stage(strategy="chain-of-thought", accept=0.9)
    profile = PROFILE.model_copy(
        update={
            "auto": Policy(
                weights="scripted",
                cases=(
                    Case(
                        task="countdown",
                        direct_tokens=9,
                        plans=(Plan(stages=(first, Stage(strategy="tree-of-thoughts")), tokens=300),),
                    ),
                ),
            )
        }
    )
    tried = {tuple(stages(await solve(Auto(), problem(), player(), profile=profile, seed=seed))) for seed in range(6)}
    assert tried == {("1 chain-of-thought",), ("1 chain-of-thought", "2 tree-of-thoughts")}


async def test_without_probabilities_of_words_it_takes_the_best_of_n() -> None:
    engine = player()
    engine = Scripted(engine.reply, caps=Capabilities(logprobs=0, token_ids=True, continuation=True))
    outcome = await solve(Auto(), problem(), engine, profile=PROFILE)
    assert stages(outcome) == ["1 best-of-n"]
    assert outcome.answer.confidence == 1.0  # by the checker, not by the model's certainty
    assert any("choose" in why for why in notes(outcome)["left_out"])


async def test_a_named_verifier_chooses_among_n() -> None:
    engine = says("Answer: 4", "so\nAnswer: {n}", SURE)
    chosen = Auto.model_validate({"verifier": {"name": "exact", "params": {"reference": "9"}}})
    outcome = await solve(chosen, ASKED, engine)
    assert stages(outcome) == ["1 best-of-n"]
    assert outcome.answer.value == "9"


async def test_the_calibrated_plan_is_followed() -> None:
    cheap = Plan(stages=(Stage(strategy="direct"),), tokens=2, success=0.4)
    vote = Stage(strategy="self-consistency", fields={"n": 5})
    better = Plan(stages=(Stage(strategy="direct", accept=0.5), vote), tokens=40, success=0.9)
    profile = policy(cheap, better)
    engine = says("Answer: 4", "so\nAnswer: 5", UNSURE)
    outcome = await solve(Auto(), ASKED, engine, profile=profile)
    assert stages(outcome) == ["1 direct", "2 self-consistency"]
    assert (notes(outcome)["policy"], notes(outcome)["case"]) == ("calibrated", "any")
    assert engine.samples == 6
    sure = await solve(Auto(), ASKED, says("Answer: 4", "", SURE), profile=profile)
    assert stages(sure) == ["1 direct"]


async def test_a_policy_is_not_for_formats_that_it_was_not_fitted_to() -> None:
    profile = policy(Plan(stages=(Stage(strategy="chain-of-thought"),), tokens=2))
    asked = Problem("?", structured=Structured(json_object=True))
    engine = Scripted(lambda p, s, i: json.dumps({"answer": 4}), logprob=lambda p, t: SURE)
    outcome = await solve(Auto(), asked, engine, profile=profile)
    assert stages(outcome) == ["1 direct"]
    assert json.loads(outcome.content) == {"answer": 4}


@pytest.mark.parametrize(
    ("stage", "why"),
    [
        (Stage(strategy="telepathy"), "telepathy"),
        (Stage(strategy="self-consistency", fields={"m": 3}), "self-consistency: m"),
        (Stage(strategy="self-consistency", fields={"n": 17}), "17 paths at once"),
        (Stage(strategy="auto"), "stage of itself"),
        (Stage(strategy="best-of-n", fields={"verifier": "oracle"}), "oracle"),
    ],
)
async def test_stages_that_cannot_run_are_left_out(stage: Stage, why: str) -> None:
    profile = policy(Plan(stages=(stage,), tokens=2))
    outcome = await solve(Auto(), ASKED, says("", "so\nAnswer: 4", SURE), profile=profile)
    assert any(why in reason for reason in notes(outcome)["left_out"])
    assert outcome.answer.value == "4"


async def test_nothing_is_begun_that_the_budget_cannot_pay() -> None:
    cheap = Plan(stages=(Stage(strategy="direct"),), tokens=2)
    dear = Plan(stages=(Stage(strategy="self-consistency", fields={"n": 8}),), tokens=40)
    engine = says("Answer: 4", "so\nAnswer: 5", UNSURE)
    outcome = await solve(Auto(), ASKED, engine, profile=policy(cheap, dear), limits=Limits(tokens=39))
    assert stages(outcome) == ["1 direct"]
    assert outcome.stopped == "budget-tokens"
    assert "self-consistency" in notes(outcome)["budget"]
    few = await solve(Auto(), ASKED, engine, profile=policy(cheap, dear), limits=Limits(samples=7))
    assert (stages(few), few.stopped) == (["1 direct"], "budget-samples")
    enough = await solve(Auto(), ASKED, engine, profile=policy(cheap, dear), limits=Limits(tokens=40, samples=8))
    assert stages(enough) == ["1 self-consistency"]


async def test_an_effort_bounds_what_runs_longer_than_expected() -> None:
    plan = Plan(stages=(Stage(strategy="self-consistency", fields={"n": 8}),), tokens=30)
    engine = says("", "one two three four five six seven eight nine ten\nAnswer: 5", SURE)
    outcome = await solve(Auto(effort="high"), ASKED, engine, profile=policy(plan))
    assert outcome.usage.completion == engine.generated <= 32  # 16 direct answers of 2 tokens
    assert outcome.stopped == "budget-tokens"


async def test_a_cut_run_hands_in_what_an_earlier_stage_found() -> None:
    first = Stage(strategy="direct", accept=0.9)
    plan = Plan(stages=(first, Stage(strategy="self-consistency", fields={"n": 8})), tokens=5)
    engine = says("Answer: 4", "one two three four five six seven\nAnswer: 5", UNSURE)
    outcome = await solve(Auto(), ASKED, engine, profile=policy(plan), limits=Limits(tokens=8))
    assert outcome.content == "Answer: 4"
    assert outcome.stopped == "budget-tokens"


async def test_a_stage_gives_the_request_its_verifier_back() -> None:
    vote = SelfConsistency(n=2)
    plan = Plan(
        stages=(
            Stage(strategy="best-of-n", fields={"n": 2, "verifier": "certainty"}, accept=0.999),
            Stage(strategy=vote.title, fields={"n": 2}),
        ),
        tokens=5,
    )
    outcome = await solve(Auto(), ASKED, says("", "so\nAnswer: {n}", UNSURE), profile=policy(plan))
    kinds = [{score["by"] for score in node.scores} for node in outcome.trace.nodes if node.role == "path"]
    assert kinds == [{"certainty"}, {"certainty"}]
    assert outcome.samples == 2
