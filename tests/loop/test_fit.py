"""The arithmetic of a policy, on numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from reason_engine.loop.fit import Measured, Sample, buckets, candidates, fit, frontier
from reason_engine.policy import Case, Features, Plan, Policy, Stage, case_of, pick, weights_of


def arm(
    strategy: str, *samples: tuple[bool, float, Mapping[str, int]], fields: Mapping[str, Any] | None = None
) -> Measured:
    stage = Stage.model_validate({"strategy": strategy, "fields": fields or {}})
    return Measured(stage, tuple(Sample(*sample) for sample in samples))


def plan(tokens: float, success: float, *names: str) -> Plan:
    stages = [Stage.model_validate({"strategy": name}) for name in names or ("direct",)]
    return Plan(stages=tuple(stages), tokens=tokens, success=success)


def named(plans: list[Plan]) -> dict[tuple[str, ...], list[Plan]]:
    found: dict[tuple[str, ...], list[Plan]] = {}
    for one in plans:
        found.setdefault(tuple(stage.strategy for stage in one.stages), []).append(one)
    return found


def test_a_cascade_pays_for_the_second_stage_only_where_the_first_is_unsure() -> None:
    cheap = arm("direct", (True, 0.9, {"d": 2}), (True, 0.8, {"d": 2}), (False, 0.2, {"d": 2}))
    dear = arm("vote", (True, 1, {"v": 50}), (True, 1, {"v": 60}), (True, 1, {"v": 100}))
    both = named(candidates([cheap, dear]))["direct", "vote"]
    best = next(p for p in both if p.success == 1 and p.tokens == pytest.approx((2 + 2 + 102) / 3, abs=0.01))
    assert 0.2 < (best.stages[0].accept or 0) <= 0.8
    assert best.stages[1].accept is None


def test_paths_of_one_kind_are_paid_once() -> None:
    few = arm("few", (False, 0.5, {"p": 30}), (True, 1.0, {"p": 30}))
    many = arm("many", (True, 0.8, {"p": 160}), (True, 0.9, {"p": 150}))
    (one,) = {p.tokens for p in named(candidates([few, many]))["few", "many"] if p.success == 1}
    assert one == (160 + 30) / 2


def test_kinds_that_differ_add_up() -> None:
    few = arm("few", (False, 0.5, {"p": 30}), (True, 1.0, {"p": 30}))
    many = arm("many", (True, 0.8, {"q": 160}), (True, 0.9, {"q": 150}))
    assert {p.tokens for p in named(candidates([few, many]))["few", "many"] if p.success == 1} == {(190 + 30) / 2}


def test_a_dear_probe_is_not_tried_first() -> None:
    a = arm("a", (True, 0.5, {"a": 70}), (True, 0.6, {"a": 70}))
    b = arm("b", (True, 0.5, {"b": 100}), (True, 0.6, {"b": 100}))
    assert set(named(candidates([a, b]))) == {("a",), ("b",)}


def test_three_stages() -> None:
    a = arm("a", (True, 0.9, {"a": 1}), (False, 0.1, {"a": 1}), (False, 0.2, {"a": 1}))
    b = arm("b", (False, 0.1, {"b": 10}), (True, 0.9, {"b": 10}), (False, 0.2, {"b": 10}))
    c = arm("c", (False, 0.1, {"c": 100}), (False, 0.1, {"c": 100}), (True, 0.9, {"c": 100}))
    best = max(candidates([a, b, c]), key=lambda p: (p.success or 0, -p.tokens))
    assert [stage.strategy for stage in best.stages] == ["a", "b", "c"]
    assert (best.success, best.tokens) == (1.0, pytest.approx((1 + 11 + 111) / 3))


def test_the_frontier_drops_what_is_dearer_and_no_better() -> None:
    plans = [plan(10, 0.5), plan(20, 0.5), plan(30, 0.4), plan(40, 0.9), plan(39, 0.9, "a", "b")]
    assert [(p.tokens, p.success) for p in frontier(plans)] == [(10, 0.5), (39, 0.9)]


def test_a_plan_that_is_little_cheaper_than_the_next_better_one_is_dropped() -> None:
    plans = [plan(10, 0.1), plan(12, 0.2), plan(76, 0.3), plan(74, 0.25), plan(100, 0.9)]
    assert [p.tokens for p in frontier(plans)] == [10, 12, 74, 100]
    assert [p.tokens for p in frontier([plan(90, 0.1), plan(100, 0.9)])] == [90, 100]


@pytest.mark.parametrize(("within", "last"), [(0.0, 400), (0.01, 100), (0.1, 40), (1.0, 10)])
def test_the_last_plan_is_the_cheapest_that_is_good_enough(within: float, last: float) -> None:
    plans = [plan(10, 0.5), plan(40, 0.85), plan(100, 0.9), plan(400, 0.905)]
    assert frontier(plans, within)[-1].tokens == last


def test_ties_go_to_the_cheaper_and_then_the_shorter_plan() -> None:
    assert frontier([plan(10, 0.5, "a", "b"), plan(10, 0.5)])[0].stages[0].strategy == "direct"


def test_questions_are_told_apart_by_length_where_there_are_enough() -> None:
    assert buckets([5] * 20 + [50] * 20) == [(8, list(range(20))), (None, list(range(20, 40)))]
    assert buckets([5] * 3 + [50] * 20) == [(None, list(range(23)))]
    assert buckets([5] * 20 + [50] * 3) == [(None, list(range(23)))]
    assert buckets([5] * 12 + [12] * 12 + [200] * 12) == [
        (8, list(range(12))),
        (16, list(range(12, 24))),
        (None, list(range(24, 36))),
    ]


def test_a_case_knows_the_length_of_a_direct_answer_and_its_curves() -> None:
    cheap = arm("direct", (True, 0.9, {"d": 2}), (False, 0.2, {"d": 4}))
    dear = arm("vote", (True, 1, {"v": 50}), (True, 1, {"v": 60}), fields={"n": 4})
    case, curves = fit("sums", 8, [cheap, dear])
    assert case.direct_tokens == 3
    assert case.label == "sums, up to 8 words"
    assert [(c.strategy, c.success, c.tokens, c.problems) for c in curves] == [
        ("direct", 0.5, 3, 2),
        ("vote:n=4", 1.0, 55, 2),
    ]
    assert case.plans[0].stages[0].strategy == "direct"
    assert case.plans[-1].success == 1.0


def test_pick_takes_the_best_that_can_be_paid() -> None:
    plans = [plan(10, 0.5), plan(40, 0.8), plan(100, 0.9)]
    assert pick(plans) is plans[2]
    assert pick(plans, 99.9) is plans[1]
    assert pick(plans, 40) is plans[1]
    assert pick(plans, 9) is None


def test_the_first_case_that_fits() -> None:
    def case(task: str | None, words: int | None) -> Case:
        return Case(task=task, words=words, direct_tokens=1, plans=(plan(1, 1),))

    policy = Policy(weights="w", cases=(case("game", None), case(None, 8), case(None, None)))
    assert case_of(policy, Features("game", 5)) is policy.cases[0]
    assert case_of(policy, Features(None, 8)) is policy.cases[1]
    assert case_of(policy, Features(None, 9)) is policy.cases[2]
    assert case_of(policy, Features("other", 9)) is None
    assert case_of(policy, Features("game", 5, "tools")) is None


def test_weights_are_named_alike_by_every_engine() -> None:
    assert weights_of("embedded-0123abcd") == weights_of("vllm-0.32.0-0123abcd") == "0123abcd"
    assert weights_of("embedded-0123abcd", "style") == "0123abcd+style"
