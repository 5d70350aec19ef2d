"""`auto` on a model that was not calibrated: how many paths it draws, when they are enough, and who decides a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from reason_engine.contracts import Call, Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.policy import Case, Plan, Policy, Stage
from reason_engine.profile import Profile
from reason_engine.runtime import budget
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.auto import Auto
from reason_engine.strategies.auto.waves import holds
from reason_engine.types import Limits, Path, Problem, Score, Structured
from reason_engine.verifiers import verifiers

ASKED = Problem("How many apples are left of 7?")
WORDS = Problem("Write a poem about 7 apples.")


def answers(*values: object, text: str = "so it is\nAnswer: {}", thinks: bool = False) -> Scripted:
    """Gives these answers in turn, the last one from then on."""
    drawn = iter([*values, *[values[-1]] * 200])
    return Scripted(lambda prompt, seed, index: text.format(next(drawn)), thinks=thinks)


async def auto(engine: Scripted, problem: Problem = ASKED, *, profile: Profile | None = None, **fields: Any) -> Outcome:
    limits = fields.pop("limits", Limits())
    return await solve(Auto.model_validate(fields), problem, engine, profile=profile, limits=limits)


def spans(outcome: Outcome) -> list[str]:
    return [node.name for node in outcome.trace.children(0) if node.role == "span"]


def notes(outcome: Outcome) -> Mapping[str, Any]:
    return outcome.trace.children(0)[0].notes


async def test_three_equal_paths_are_enough() -> None:
    engine = answers(4)
    outcome = await auto(engine)
    assert (outcome.answer.value, outcome.answer.confidence, outcome.stopped) == ("4", 1.0, "decided")
    assert (engine.samples, engine.requests) == (3, 1)
    assert spans(outcome) == ["1 vote"]
    assert outcome.trace.nodes[0].notes["policy"].startswith("uncalibrated")
    assert notes(outcome)["posterior"] == pytest.approx(0.9375)


async def test_a_model_that_thinks_begins_with_two() -> None:
    engine = answers(4, text="because</think>Answer: {}", thinks=True)
    outcome = await auto(engine)
    assert (outcome.answer.value, engine.samples) == ("4", 2)


@pytest.mark.parametrize(("effort", "paths"), [("medium", 3), ("high", 4), ("xhigh", 4), ("max", 4)])
async def test_a_high_effort_asks_one_more_to_be_certain(effort: str, paths: int) -> None:
    engine = answers(4)
    outcome = await auto(engine, effort=effort)
    assert (outcome.answer.value, engine.samples) == ("4", paths)


async def test_answers_that_were_not_read_where_one_was_asked_for_need_more_to_agree() -> None:
    engine = answers(4, text="so it is\n{} apples are left")
    outcome = await auto(engine)
    assert (outcome.answer.value, outcome.stopped) == ("4", "decided")
    assert engine.samples == 6  # three, and a wave


async def test_a_split_is_voted_on_until_the_lead_is_certain() -> None:
    engine = answers(4, 5, 4)
    outcome = await auto(engine)
    assert (outcome.answer.value, outcome.stopped) == ("4", "decided")
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 6), ("5", 1)]
    assert outcome.answer.confidence == pytest.approx(6 / 7)
    assert outcome.usage.completion == engine.generated


@pytest.mark.parametrize(
    ("first", "second", "left", "chance"),
    [
        (3, 0, 1, 1.0),
        (2, 1, 1, 0.6),  # 3 of 5: a tie is no lead
        (2, 0, 2, 0.9),  # both to come for the other: 1/4 * 2/5
        (2, 2, 0, 0.0),
        (2.0, 0.4, 1, 0.6),  # rounded as two to one
    ],
)
def test_a_lead_lasts_with_the_chance_that_the_rest_leaves_it(
    first: float, second: float, left: int, chance: float
) -> None:
    assert holds(first, second, left) == pytest.approx(chance)


async def test_a_lead_that_will_last_is_enough() -> None:
    """7 to 3 is one with a posterior of 0.89 only, but 6 paths overturn it with a chance of 0.04."""
    engine = answers(4, 4, 5, 4, 5, 4, 4, 5, 4, 4, 5, 5, 5)
    outcome = await auto(engine)
    assert (outcome.answer.value, outcome.stopped) == ("4", "decided")
    assert 10 <= engine.samples < 16


@pytest.mark.parametrize(
    ("effort", "paths"), [(None, 16), ("medium", 4), ("high", 16), ("xhigh", 64)], ids=["none", "4", "16", "64"]
)
async def test_a_split_for_good_ends_with_what_the_effort_pays_for(effort: str | None, paths: int) -> None:
    engine = answers(*range(200))
    outcome = await auto(engine, effort=effort)
    assert (engine.samples, outcome.stopped) == (paths, "done")
    assert sum(vote.count for vote in outcome.answer.votes) == paths
    assert max(request.n for request in engine.log) <= 16


@pytest.mark.parametrize(
    ("effort", "name"), [("none", "1 direct"), ("minimal", "1 direct"), ("low", "1 chain-of-thought")]
)
async def test_a_low_effort_is_one_path(effort: str, name: str) -> None:
    engine = answers(4, 5)
    outcome = await auto(engine, effort=effort)
    assert (spans(outcome), engine.samples, outcome.answer.value) == ([name], 1, "4")


async def test_one_path_at_most_is_one_by_steps() -> None:
    engine = answers(4, 5)
    assert spans(await auto(engine, n=1)) == ["1 chain-of-thought"]
    assert engine.samples == 1


@pytest.mark.parametrize(
    "problem",
    [
        WORDS,
        Problem("How many?", structured=Structured(json_object=True)),
        Problem("How many are 2 + 2?", tools=({"type": "function", "function": {"name": "f"}},)),
        Problem("Complete this function:\ndef add(a, b):"),
    ],
    ids=["free", "json", "tools", "code"],
)
async def test_what_agreement_says_nothing_of_is_one_path(problem: Problem) -> None:
    engine = Scripted(lambda p, s, i: '{"a": 1}')
    outcome = await auto(engine, problem, effort="high")
    assert (spans(outcome), engine.samples) == (["1 direct"], 1)
    assert outcome.content == '{"a": 1}'


async def test_a_kind_that_the_request_names_is_voted_on() -> None:
    engine = answers(4)
    await auto(engine, WORDS, answer_kind="number")
    assert engine.samples == 3


async def test_a_question_that_no_path_answers_is_an_open_one() -> None:
    engine = Scripted(lambda p, s, i: f"Well, that depends, {'abc'[i]}.", logprob=lambda p, t: -2.0)
    outcome = await auto(engine)
    assert outcome.samples == 3  # asked once more each, which they say little sure of
    assert outcome.answer.value is None
    assert outcome.content.startswith("Well, that depends")


async def test_one_value_among_open_answers_starts_no_vote() -> None:
    texts = ["Well, that depends on the tree.", "Well, that depends on the year.", "so\nAnswer: 4"]
    engine = Scripted(lambda p, s, i: texts[i], logprob=lambda p, t: -2.0)
    outcome = await auto(engine)
    assert outcome.samples == 3
    assert outcome.content.startswith("Well, that depends")


async def test_no_whole_text_is_judged_by_its_probability() -> None:
    engine = Scripted(lambda p, s, i: "so\nAnswer: 4", caps=Capabilities(logprobs=-1, structured=True))
    outcome = await auto(engine)
    assert (outcome.answer.value, engine.samples) == ("4", 3)


@pytest.mark.parametrize(
    ("limits", "paths", "stopped"),
    [
        (Limits(samples=5), 5, "budget-samples"),
        (Limits(samples=2), 2, "budget-samples"),
        (Limits(tokens=60), 4, "budget-tokens"),
    ],
    ids=["between waves", "first wave", "tokens"],
)
async def test_no_wave_is_begun_that_the_budget_cannot_pay(limits: Limits, paths: int, stopped: str) -> None:
    engine = answers(*range(200), text="one two three four five six seven eight nine\nAnswer: {}")
    outcome = await auto(engine, limits=limits)
    assert (engine.samples, outcome.stopped) == (paths, stopped)
    assert outcome.answer.value == "0"
    assert outcome.usage.completion == engine.generated <= (limits.tokens or 10_000)


async def test_no_wave_is_begun_that_the_time_is_too_short_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    drawn = iter(range(200))

    def reply(prompt: str, seed: int, index: int) -> str:
        now[0] += 10
        return f"so\nAnswer: {next(drawn)}"

    monkeypatch.setattr(budget.time, "monotonic", lambda: now[0])
    outcome = await auto(Scripted(reply), limits=Limits(seconds=100))
    assert (outcome.samples, outcome.stopped, outcome.cut) == (7, "done", 0)


async def test_the_profile_says_when_a_lead_is_certain() -> None:
    engine = answers(4, 5, 4)
    await auto(engine, profile=Profile(certain=0.6))
    assert engine.samples == 3  # 2 to 1 is 0.69


class Likes(BaseModel):
    """Scores the paths that end in `value` 1 and all others `rest`; fails on the whole where `rest` is negative."""

    model_config = ConfigDict(frozen=True)
    value: str = "7"
    rest: float = 0.01

    async def score(self, problem: Problem, paths: list[Path], call: Call) -> list[Score]:
        if self.rest < 0:
            raise ValueError("no judgement")
        return [Score(1.0 if path.text.endswith(self.value) else self.rest) for path in paths]


@pytest.fixture
def likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`likes` is a registered verifier."""
    assert "countdown" in verifiers  # loads the registry
    monkeypatch.setitem(verifiers._found, "likes", Likes)


SPLIT = (4, 7, 4, 5, 6, 4, 7, 3, 2, 1, 4, 7, 8, 9, 0, 3)
"""Four for 4, three for 7, never certain."""


@pytest.mark.usefixtures("likes")
async def test_a_verifier_decides_a_split_over_the_same_paths() -> None:
    engine = answers(*SPLIT)
    outcome = await auto(engine, profile=Profile(verifiers=("likes",)))
    assert (outcome.answer.value, engine.samples) == ("7", 16)
    assert sum(vote.count for vote in outcome.answer.votes) == 16
    assert {score["by"] for node in outcome.trace.nodes for score in node.scores} == {"likes"}
    plain = await auto(answers(*SPLIT))
    assert plain.answer.value == "4"


@pytest.mark.usefixtures("likes")
@pytest.mark.parametrize("fields", [{"effort": "medium"}, {}], ids=["medium", "agreed"])
async def test_a_verifier_is_not_asked_where_it_is_not_needed(fields: dict[str, Any]) -> None:
    engine = answers(*SPLIT) if fields else answers(4)
    outcome = await auto(engine, profile=Profile(verifiers=("likes",)), **fields)
    assert outcome.answer.value == "4"
    assert not [score for node in outcome.trace.nodes for score in node.scores]


@pytest.mark.usefixtures("likes")
async def test_a_verifier_that_fails_leaves_the_vote() -> None:
    outcome = await auto(answers(*SPLIT), verifier={"name": "likes", "params": {"rest": -1}}, effort="medium")
    assert outcome.answer.value == "4"
    assert "no judgement" in notes(outcome)["verifier"]


async def test_a_profiles_verifier_that_cannot_judge_here_is_left_out() -> None:
    outcome = await auto(answers(*SPLIT), profile=Profile(verifiers=("oracle", "exact")))
    assert outcome.answer.value == "4"
    left_out = outcome.trace.nodes[0].notes["left_out"]
    assert "oracle" in left_out[0] and "exact" in left_out[1]


def policy(weights: str, task: str | None = None, **stage: Any) -> Profile:
    plan = Plan(stages=(Stage(**{"strategy": "direct", **stage}),), tokens=2)
    return Profile(auto=Policy(weights=weights, cases=(Case(task=task, direct_tokens=2, plans=(plan,)),)))


@pytest.mark.parametrize(
    ("profile", "why"),
    [(policy("0123"), "other weights (0123"), (policy("scripted", task="chess"), "not fitted")],
    ids=["stale", "no case"],
)
async def test_a_policy_that_does_not_fit_is_not_followed(profile: Profile, why: str) -> None:
    outcome = await auto(answers(4), profile=profile)
    assert why in outcome.trace.nodes[0].notes["policy"]
    assert spans(outcome) == ["1 vote"]


async def test_a_policy_that_cannot_run_here_is_none() -> None:
    outcome = await auto(answers(4), profile=policy("scripted", fields={"m": 3}))
    assert (spans(outcome), outcome.answer.value) == (["1 vote"], "4")


async def test_paths_that_say_nothing_lose_nothing() -> None:
    outcome = await auto(Scripted(lambda p, s, i: ""))
    assert (outcome.answer.value, outcome.content, outcome.stopped) == (None, "", "done")
