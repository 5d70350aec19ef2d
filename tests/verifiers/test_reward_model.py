"""Reward models as verifiers: kinds, folds, and a whole run on the embedded engine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities, ProcessVerifier
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, RequestError, UnknownName
from reason_engine.runtime.solve import solve
from reason_engine.steps import step_ends
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Message, Problem, ScoreRequest, Scores
from reason_engine.verifiers.reward_model import RewardModel, squashed
from tests.verifiers.conftest import Build, NoCall, path

BOTH = Capabilities(score=True, rewards=(("orm", "outcome"), ("prm", "process")))
PROBLEM = Problem("2 + 3?", history=(Message("user", "Hi"), Message("assistant", "Hello")))


class Rated(NoCall):
    """Rates a text by its length, a place by its number."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def rate(self, request: ScoreRequest, stage: str = "rate") -> Scores:
        self.asked.append((request.task, request.model, request.turns, request.ends, request.prompts))
        if request.task == "reward":
            return Scores(tuple((float(len(text)),) for text in request.inputs))
        return Scores(tuple(tuple(float(-end) for end in its) for its in request.ends))


async def test_an_outcome_model(build: Build) -> None:
    call, judge = Rated(), build("reward-model", {"model": "orm"}, caps=BOTH)
    scores = await judge.score(PROBLEM, [path("abc"), path("")], call)
    assert [score.value for score in scores] == pytest.approx([squashed(3), 0.5])
    assert call.asked == [("reward", "orm", (*PROBLEM.history, Message("user", "2 + 3?")), (), ())]
    assert not isinstance(judge, ProcessVerifier)


@pytest.mark.parametrize("name", ["orm", "prm"])
async def test_paths_are_read_after_the_prompts_that_they_had(build: Build, name: str) -> None:
    call, judge = Rated(), build("reward-model", {"model": name}, caps=BOTH)
    one, other = replace(path("abc"), prompt="asked so"), replace(path("de"), prompt="asked otherwise")
    await judge.score(PROBLEM, [one, other], call)
    await judge.score(PROBLEM, [one, path("de")], call)  # one that nobody asked the served model for
    assert [asked[-1] for asked in call.asked] == [("asked so", "asked otherwise"), ()]


async def test_the_aggregate_is_the_makers_unless_the_request_says(build: Build) -> None:
    made = replace(BOTH, aggregates=(("prm", "product"),))
    steps = [path("a\n\nbbb")]
    for params, value in (({}, squashed(-1) * squashed(-6)), ({"aggregate": "min"}, squashed(-6))):
        (score,) = await build("reward-model", {"model": "prm", **params}, caps=made).score(PROBLEM, steps, Rated())
        assert score.value == pytest.approx(value)


async def test_a_thought_is_not_judged(build: Build) -> None:
    call = Rated()
    thinking = replace(path("<think>a\n\nb</think>\n\nabc\n\nde"), prompt="asked so")
    (score,) = await build("reward-model", {"model": "orm"}, caps=BOTH).score(PROBLEM, [thinking], call)
    assert score.value == pytest.approx(squashed(len("abc\n\nde")))
    await build("reward-model", {"model": "prm"}, caps=BOTH).score(PROBLEM, [thinking], call)
    assert call.asked[-1][-2:] == (((3, 7),), ())


async def test_a_served_models_own_name_stands_for_it(build: Build) -> None:
    call, judge = Rated(), build("orm", caps=BOTH)
    await judge.score(PROBLEM, [path("abc")], call)
    assert call.asked[0][:2] == ("reward", "orm")
    steps = build("prm", {"aggregate": "mean"}, caps=BOTH)
    assert isinstance(steps, ProcessVerifier) and isinstance(steps, RewardModel) and steps.aggregate == "mean"
    with pytest.raises(UnknownName):
        build("orm")
    with pytest.raises(RequestError, match=r"params\.n"):
        build("orm", {"n": 3}, caps=BOTH)
    named = Capabilities(score=True, rewards=(("exact", "outcome"),))
    assert not isinstance(build("exact", {"reference": "4"}, caps=named), RewardModel), "the package's own come first"


@pytest.mark.parametrize(
    ("fold", "value"),
    [
        ("min", squashed(-4)),
        ("last", squashed(-4)),
        ("mean", (squashed(-1) + squashed(-4)) / 2),
        ("product", squashed(-1) * squashed(-4)),
    ],
)
async def test_a_process_model(fold: str, value: float, build: Build) -> None:
    call, judge = Rated(), build("reward-model", {"model": "prm", "aggregate": fold}, caps=BOTH)
    assert isinstance(judge, ProcessVerifier)
    scores = await judge.score(PROBLEM, [path("a\nbb"), path("\n")], call)
    assert [score.value for score in scores] == pytest.approx([value, 0])
    assert call.asked[0][3] == ((1, 4), ())
    steps = await judge.score_steps(PROBLEM, path("a\nbb"), call)
    assert [step.value for step in steps] == pytest.approx([squashed(-1), squashed(-4)])


def test_ends_and_sigmoid() -> None:
    assert step_ends("a\n\nbb\n", "\n") == (1, 5)
    assert step_ends("a; bb", "; ") == (1, 5)
    assert squashed(-1e6) == 0
    assert squashed(1e6) == 1
    assert math.isnan(squashed(math.nan))


@pytest.mark.parametrize(
    ("params", "caps", "error", "match"),
    [
        ({}, Capabilities(), CapabilityMissing, "--reward-model NAME=PATH"),
        ({}, BOTH, RequestError, "which reward model.*orm, prm"),
        ({"model": "/etc/passwd"}, BOTH, RequestError, "no reward model named '/etc/passwd'"),
    ],
)
async def test_what_is_missing_is_said_before_a_token_is_spent(
    params: dict[str, object], caps: Capabilities, error: type[RequestError], match: str
) -> None:
    engine = Scripted(caps=caps)
    strategy = BestOfN.model_validate({"verifier": {"name": "reward-model", "params": params}})
    with pytest.raises(error, match=match) as caught:
        await solve(strategy, PROBLEM, engine)
    assert caught.value.param is not None and caught.value.param.startswith("reasoning.verifier")
    assert engine.requests == 0


async def test_the_only_one_needs_no_name_and_its_tokens_are_a_stage() -> None:
    engine = Scripted(lambda p, seed, i: f"Answer: {'7' * (seed % 5)}", reward=lambda text: float(len(text)))
    outcome = await solve(BestOfN.model_validate({"n": 5, "verifier": "reward-model"}), PROBLEM, engine)
    assert outcome.answer.value == "7777"
    assert outcome.usage_by_stage["reward-model"].prompt > 0
    assert outcome.usage_by_stage["reward-model"].completion == 0


@pytest.mark.parametrize("params", [{"aggregate": "median"}, {"path": "/etc"}, {"model": "x" * 201}])
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RewardModel.model_validate(params)
