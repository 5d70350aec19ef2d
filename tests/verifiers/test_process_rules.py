"""The step judge: what each part says, how they come together, and that nothing in a text can hurt it."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call, ProcessVerifier
from reason_engine.profile import Profile
from reason_engine.types import Passage, Problem
from reason_engine.verifiers.process_rules import ProcessRules
from reason_engine.verifiers.process_rules.form import fault_of_form
from reason_engine.verifiers.process_rules.steps import steps_of
from reason_engine.verifiers.process_rules.support import support
from reason_engine.verifiers.process_rules.verifier import REFUTED
from tests.verifiers.conftest import Build, Library, path

STORY = Problem("Anna has 12 apples. She buys 25 more. She gives 7 to Ben. How many are left?")
RIGHT = "12 + 25 = 37\n37 - 7 = 30\nAnswer: 30"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("12 + 25 = 37", ""),
        ("So (a) holds, see [1].", ""),
        ("a) the first way", ""),
        ("  ", "empty"),
        ("(12 + 25 = 37", "bracket"),
        ("12 + 25]", "bracket"),
        ("12 + = 4", "parse"),
        ("12 + 25 =", "parse"),
        ("Answer:", "no answer"),
        ("and then and then and then and then and then", "again and again"),
        ("x" * 10_000, "overlong"),
        ("said", "said before"),
        ("first\nAnswer:", "no answer"),
        ("so 3 + 4 = 7\nand 3 * =", "parse"),
        ("\\[\nx = [0, 1)", ""),
        ("the range [2, 5) of it", ""),
        ("```python\nprint(", ""),
        ("500 / 9 = 55.55555555555556", ""),
        ("a face :)", ""),
        ("1) one\n2) two", ""),
    ],
)
def test_form(text: str, fault: str) -> None:
    found = fault_of_form(text, {"said"}, "Answer:")
    assert fault in found
    assert bool(found) == bool(fault)


def test_steps_have_the_likelihood_of_their_tokens() -> None:
    made = path("a b\n\nc", logprob=math.log(0.5), prefill="given\n")
    assert [(step.text, step.likelihood) for step in steps_of(made, "\n")] == [
        ("given", None), ("a b", pytest.approx(0.5)), ("c", pytest.approx(0.5))
    ]  # fmt: skip
    assert [step.text for step in steps_of(made, "b")] == ["given\na ", "\n\nc"]
    assert steps_of(path(""), "\n") == []


def test_support_is_of_wording_and_figures() -> None:
    source = [Passage("The red box holds 34 stamps.", "a.md")]
    assert support("[1] The red box holds 34 stamps.", source) == 1
    assert support("The red box holds 35 stamps.", source) == 0.5
    assert support("Pluto was discovered by Tombaugh.", source) == 0
    assert support("!", source) == 1


async def test_the_weighted_sum_by_hand(no_call: Call) -> None:
    made = path("12 + 25 = 37", logprob=math.log(0.5))
    (score,) = await ProcessRules().score_steps(STORY, made, no_call)
    assert score.value == pytest.approx(0.3 + 0.5 * 0.5 + 0.2)
    (wrong,) = await ProcessRules().score_steps(STORY, path("12 + 25 = 47", logprob=math.log(0.5)), no_call)
    assert wrong.value == pytest.approx(REFUTED * (0.3 + 0.5 * 0.5))
    assert "12 + 25 is not 47" in wrong.detail
    only = ProcessRules.model_validate({"weights": {"syntax": 0, "coherence": 1, "fact": 0}})
    assert (await only.score_steps(STORY, made, no_call))[0].value == pytest.approx(0.5)


async def test_parts_without_a_say_do_not_count(no_call: Call) -> None:
    (prose,) = await ProcessRules().score_steps(STORY, path("Let us see."), no_call)
    assert prose.value == 1
    (loud,) = await ProcessRules().score_steps(STORY, path("Let us see.", logprob=math.log(0.2)), no_call)
    assert loud.value == pytest.approx((0.3 + 0.5 * 0.2) / 0.8)


async def test_the_sound_path_wins_under_every_aggregate(build: Build, no_call: Call) -> None:
    bad = {
        "arithmetic": "12 + 25 = 47\n47 - 7 = 40\nAnswer: 40",
        "a number from nowhere": "12 + 25 = 37\n37 - 9 = 28\nAnswer: 28",
        "not what it comes to": "12 + 25 = 37\n37 - 7 = 30\nAnswer: 37",
        "a step left out": "12 + 25 = 37\nAnswer: 37",
        "a loose end": "12 + 25 = 37\n25 - 7 = 18\nAnswer: 18",
        "open bracket": "(12 + 25 = 37\n37 - 7 = 30\nAnswer: 30",
    }
    paths = [path(text, logprob=-0.1) for text in (RIGHT, *bad.values())]
    for aggregate in ("product", "min", "mean"):
        judge = build("process-rules", {"aggregate": aggregate})
        right, *wrong = [score.value for score in await judge.score(STORY, paths, no_call)]
        assert all(right > value >= 0 for value in wrong), aggregate
    assert (await ProcessRules().score(STORY, [path("")], no_call))[0].value == 0


async def test_a_source_bears_a_step_out_or_not() -> None:
    library = Library("The red box holds 34 stamps. Room 12 belongs to Anna.")
    told, made_up = path("The red box holds 34 stamps."), path("Neptune holds 99 comets.")
    scores = await ProcessRules().score(Problem("How many stamps?"), [told, made_up], library)
    assert scores[0].value == 1
    assert scores[1].value == pytest.approx(0.3 / 0.5, abs=0.2)
    assert scores[1].value < scores[0].value
    assert "no source says it" in scores[1].detail


async def test_the_models_own_steps_and_marker(no_call: Call, build: Build) -> None:
    profile = Profile(step_end="; ", answer_marker="####")
    judge = build("process-rules", profile=profile)
    assert isinstance(judge, ProcessVerifier)
    steps = await judge.score_steps(STORY, path("12 + 25 = 37; 37 - 7 = 30; #### 37"), no_call)
    assert [round(step.value, 2) for step in steps] == [1, 1, round(REFUTED * 0.8, 2)]
    assert "not what the steps come to" in steps[2].detail


@pytest.mark.parametrize(
    "text", ["\x00" * 5000, "((((" * 5000, "=" * 50_000, "1=" * 20_000, "\n" * 50_000, "Answer: " * 5_000, "٣ + ١ = ٤"]
)
async def test_hostile_texts_get_a_finite_score(text: str, no_call: Call) -> None:
    (score,) = await ProcessRules().score(STORY, [path(text)], no_call)
    assert 0 <= score.value <= 1


@pytest.mark.parametrize(
    "params",
    [
        {"weights": {"syntax": 0, "coherence": 0, "fact": 0}},
        {"weights": {"syntax": -1}},
        {"weights": {"logic": 1}},
        {"aggregate": "median"},
        {"path": "/etc/passwd"},
    ],
)
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProcessRules.model_validate(params)


@pytest.mark.parametrize("aggregate", ["product", "min"])
async def test_sure_but_refuted_falls_behind_unsure_but_right(aggregate: str, build: Build, no_call: Call) -> None:
    unsure, sure = path(RIGHT, logprob=-1.0), path("12 + 25 = 47\n47 - 7 = 40\nAnswer: 40", logprob=-0.001)
    judge = build("process-rules", {"aggregate": aggregate})
    right, wrong = await judge.score(STORY, [unsure, sure], no_call)
    assert right.value > 2 * wrong.value
