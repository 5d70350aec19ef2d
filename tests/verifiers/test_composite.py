"""Experts together: weights, difficulty, failures, steps, and whose tokens are whose."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from reason_engine.contracts import Call, Capabilities, ProcessVerifier, ReadsAlternatives
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, RequestError, UnknownName, VerifierError
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Path, Problem
from tests.verifiers.conftest import Build, path

PROBLEM = Problem("2 + 3?", reference="5")
SURE = {"name": "certainty"}
EXACT = {"name": "exact"}


def experts(*given: Mapping[str, object], **params: object) -> dict[str, object]:
    return {"experts": list(given), **params}


async def test_the_weighted_mean(build: Build, no_call: Call) -> None:
    judge = build("composite", experts({**EXACT, "weight": 3}, SURE), problem=PROBLEM)
    paths = [path("Answer: 5", logprob=math.log(0.5)), path("Answer: 6", logprob=math.log(0.9))]
    scores = await judge.score(PROBLEM, paths, no_call)
    assert [score.value for score in scores] == pytest.approx([(3 + 0.5) / 4, 0.9 / 4])
    assert scores[0].detail == "exact 1, certainty 0.5"


async def test_weights_go_by_difficulty(build: Build, no_call: Call) -> None:
    gated = experts({**EXACT, "easy": 1, "hard": 0}, {**SURE, "easy": 0, "hard": 1})
    judge = build("composite", gated, problem=PROBLEM)
    right = path("Answer: 5", logprob=math.log(0.5))
    agreed = await judge.score(PROBLEM, [right, right], no_call)
    assert agreed[0].value == 1  # no disagreement: only the easy expert counts
    split = await judge.score(PROBLEM, [right, path("Answer: 6", logprob=math.log(0.5))], no_call)
    assert split[0].value == pytest.approx(0.75)
    long = build("composite", {**gated, "difficulty": "length"}, problem=PROBLEM)
    hard = Problem("word " * 500, reference="5")
    assert (await long.score(hard, [right], no_call))[0].value == pytest.approx(0.5)


class Broken:
    async def score(self, problem: Problem, paths: list[Path], call: Call) -> list[object]:
        raise ZeroDivisionError("oh")


async def test_an_expert_that_fails_is_left_out(build: Build, no_call: Call) -> None:
    judge = build("composite", experts(EXACT, SURE), problem=PROBLEM)
    judge._judges = (judge._judges[0], Broken())  # pyright: ignore
    (score,) = await judge.score(PROBLEM, [path("Answer: 5")], no_call)
    assert score.value == 1
    judge._judges = (Broken(), Broken())  # pyright: ignore
    with pytest.raises(VerifierError, match="exact: ZeroDivisionError: oh; certainty"):
        await judge.score(PROBLEM, [path("Answer: 5")], no_call)


async def test_steps_are_judged_by_those_who_can(build: Build, no_call: Call) -> None:
    plain = build("composite", experts(EXACT, SURE), problem=PROBLEM)
    assert not isinstance(plain, ProcessVerifier)
    judge = build("composite", experts(EXACT, {"name": "process-rules"}), problem=PROBLEM)
    assert isinstance(judge, ProcessVerifier)
    steps = await judge.score_steps(PROBLEM, path("2 + 3 = 5\n2 + 3 = 6"), no_call)
    assert steps[0].value > 0.9 > 0.2 > steps[1].value


async def test_it_reads_what_its_experts_read(build: Build) -> None:
    judge = build("composite", experts({"name": "certainty", "params": {"measure": "entropy"}}))
    assert isinstance(judge, ReadsAlternatives)
    assert judge.alternatives == 20


async def test_each_experts_tokens_stand_under_its_name() -> None:
    engine = Scripted(lambda prompt, seed, index: "yes" if "Check" in prompt else "Answer: 5")
    params = experts(EXACT, {"name": "judge", "params": {"verdict": "sample"}})
    strategy = BestOfN.model_validate({"n": 2, "verifier": {"name": "composite", "params": params}})
    outcome = await solve(strategy, PROBLEM, engine)
    assert outcome.usage_by_stage["judge"].completion > 0
    assert "composite" not in outcome.usage_by_stage
    assert sum(usage.completion for usage in outcome.usage_by_stage.values()) == engine.generated


@pytest.mark.parametrize(
    ("params", "param", "error"),
    [
        ({}, "experts", RequestError),
        (experts(), "experts", RequestError),
        (experts({"name": "exakt"}), "experts.0", UnknownName),
        (experts(SURE, {"name": "exact", "params": {"refrence": 1}}), "experts.1.params.refrence", RequestError),
        (experts({"name": "exact"}), "experts.0.params.reference", RequestError),
        (experts({"name": "composite", "params": experts(SURE)}), "experts.0.name", RequestError),
        (experts({"name": "reward-model"}), "experts.0", CapabilityMissing),
        (experts({**SURE, "easy": 1}), "experts.0", RequestError),
        (experts({**SURE, "weight": -1}), "experts.0.weight", RequestError),
        (experts({**SURE, "weight": math.inf}), "experts.0.weight", RequestError),
        (experts(*[SURE] * 9), "experts", RequestError),
    ],
)
def test_what_is_wrong_is_named_before_a_token_is_spent(
    params: dict[str, object], param: str, error: type[RequestError], build: Build
) -> None:
    with pytest.raises(error) as caught:
        build("composite", params)
    assert caught.value.param == f"reasoning.verifier.params.{param}"


def test_an_expert_that_the_engine_cannot_serve(build: Build) -> None:
    with pytest.raises(CapabilityMissing, match="does not report"):
        build("composite", experts(SURE), caps=Capabilities(logprobs=-1))
