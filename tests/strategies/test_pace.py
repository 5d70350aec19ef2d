"""Searches end within what they have: on a slow machine they draw less, and hand in what they came to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies import strategies
from reason_engine.strategies.search.pace import SHORTEST, SPARE, TYPICAL, WARM, Pace
from reason_engine.strategies.search.tree import Thought
from reason_engine.strategies.search.values import Values
from reason_engine.types import Limits, TokenLogprob
from tests.strategies.chat import ASKED, Clock, chat, chatter
from tests.strategies.puzzle import PROFILE, hope, play, problem

SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("tree-of-thoughts", {}),
    ("tree-of-thoughts", {"search": "breadth"}),
    ("beam-search", {}),
    ("mcts", {}),
    ("mcts", {"evaluate": "verifier"}),
]
every_search = pytest.mark.parametrize(("name", "fields"), SEARCHES)
TOKEN = (TokenLogprob(0, "x", -1.0),)


async def timed(clock: Clock, name: str, fields: dict[str, Any], seconds: float | None) -> tuple[Outcome, float, int]:
    engine, began = chatter(clock), clock.now
    limits = Limits(seconds=seconds)
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, engine, limits=limits)
    return outcome, clock.now - began, engine.generated


@every_search
@pytest.mark.parametrize("each", [0.001, 0.02, 0.1, 0.3])
async def test_a_search_ends_within_its_seconds(
    name: str, fields: dict[str, Any], each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path has about 50 tokens: at 0.3 seconds a token of each row there is time for four paths and no more."""
    outcome, took, _ = await timed(Clock(monkeypatch, each), name, fields, 60.0)
    assert outcome.stopped == "done"
    assert took < 60
    assert outcome.answer.value == "5"
    assert outcome.finish_reason == "stop"


@every_search
async def test_a_slow_machine_draws_less(name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, fast = await timed(Clock(monkeypatch, 0.001), name, fields, 60.0)
    _, _, slow = await timed(Clock(monkeypatch, 0.1), name, fields, 60.0)
    _, _, free = await timed(Clock(monkeypatch, 0.1), name, fields, None)
    assert slow < fast <= free


@every_search
async def test_an_end_that_time_is_too_short_for_is_asked_for_its_answer(
    name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, took, _ = await timed(Clock(monkeypatch, 0.4), name, fields, 60.0)
    assert outcome.stopped == "done"
    assert took < 60
    assert outcome.answer.path is not None and outcome.answer.value is not None


async def test_with_a_checker_the_clock_changes_nothing_while_it_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    def texts(outcome: Outcome) -> list[str]:
        return [node.text for node in outcome.trace.nodes]

    clock = Clock(monkeypatch, 0.1)
    free = await solve(strategies.get("mcts")(), problem(), Scripted(play, choose=hope), profile=PROFILE)
    engine = Scripted(play, choose=hope, gate=clock.gate)
    limited = await solve(strategies.get("mcts")(), problem(), engine, profile=PROFILE, limits=Limits(seconds=300))
    assert texts(limited) == texts(free)


def pace(monkeypatch: pytest.MonkeyPatch, seconds: float | None, tokens: int | None = None) -> tuple[Clock, Pace]:
    clock = Clock(monkeypatch, 0.0)
    return clock, Pace(Budget(Limits(seconds=seconds, tokens=tokens)), 1)


def test_lengths_are_learned_from_what_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = pace(monkeypatch, None)
    assert made.left(0) == TYPICAL
    made.came_to_end(100)
    made.came_to_end(200)
    assert made.left(0) == int(SPARE * 150)
    assert made.left(10_000) == SHORTEST


def test_speed_says_how_many_rows_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = pace(monkeypatch, 100.0)
    assert made.rows(64, 1000) == 64  # nothing is known yet
    stint = made.begin(4)
    clock.now += 10
    made.end(stint, 4, 101)  # a tenth of a second a token, four rows
    assert made.fits(4, 90 / 0.1 / SPARE) and not made.fits(5, 90 / 0.1 / SPARE)
    assert made.rows(64, 850) == 3
    assert made.rows(64, 10) == 64
    assert made.rows(64, 100_000) == 1
    assert made.room(4) is not None


def test_it_is_late_when_the_rest_is_needed_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = pace(monkeypatch, 100.0)
    stint = made.begin(1)
    clock.now += 10
    made.end(stint, 1, 100)
    made.came_to_end(200)
    assert not made.late()
    clock.now += 60
    assert made.late()
    assert not made.late(200)  # a state that is nearly at its end needs less


def test_without_a_deadline_nothing_is_late_and_nothing_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = pace(monkeypatch, None)
    stint = made.begin(1)
    clock.now += 10_000
    made.end(stint, 1, 100)
    assert not made.late()
    assert made.watch(made.begin(1), 0) is None
    assert made.room(1) is None


def test_a_draw_gives_way_by_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = pace(monkeypatch, 100.0)
    watch = made.watch(made.begin(2), 0)
    assert watch is not None
    clock.now += 5  # the prompt is read: no speed
    assert not any(watch(0, TOKEN) for _ in range(WARM - 1))  # too few tokens to say
    clock.now += WARM - 1
    assert watch(0, TOKEN)  # a second a token: the 300 of a whole path cannot be had
    assert made.gave_way and made.late()


def test_too_few_tokens_end_a_search_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = pace(monkeypatch, None, tokens=TYPICAL)
    assert made.late()
    assert not made.late(TYPICAL)
    assert made.rows(4, 150) == 2


VALUED = pytest.mark.parametrize(
    ("name", "fields"),
    [("tree-of-thoughts", {}), ("tree-of-thoughts", {"search": "breadth"}), ("mcts", {"evaluate": "value"})],
)


@VALUED
@pytest.mark.parametrize(("each", "judging"), [(0.01, 8.0), (0.05, 1.5), (0.1, 3.0), (0.3, 1.0)])
async def test_judgements_take_of_the_seconds_too(
    name: str, fields: dict[str, Any], each: float, judging: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, each)

    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        clock.now += judging
        return [0.1, 0.9] if "= 8" in prompt or "banana" in prompt or "2 + 2 = 5" in prompt else [0.8, 0.2]

    engine, began = Scripted(chat, choose=choose, gate=clock.gate), clock.now
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, engine, limits=Limits(seconds=60.0))
    assert outcome.stopped == "done"
    assert clock.now - began < 60
    assert outcome.answer.value is not None and outcome.finish_reason == "stop"


def test_valuing_is_part_of_what_the_end_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, made = pace(monkeypatch, 100.0)
    stint = made.begin(1)
    clock.now += 10
    made.end(stint, 1, 101)
    made.came_to_end(100)
    clock.now += 40  # 50 left, of which an end needs 18
    assert not made.late() and made.fits(1, 400) and made.values
    made.valued(30.0)
    assert made.late() and not made.fits(1, 400) and made.values
    clock.now += 20
    assert not made.values


async def test_ends_that_could_not_be_valued_any_more_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    value = Values.of

    async def of(values: Values, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought | None]:
        if ctx.names[-1] == "finish":
            raise BudgetExhausted("budget-seconds")
        return await value(values, ctx, thoughts)

    monkeypatch.setattr(Values, "of", of)
    search = strategies.get("tree-of-thoughts").model_validate({"search": "breadth", "depth": 2})
    outcome = await solve(search, ASKED, chatter())
    assert sum(vote.count for vote in outcome.answer.votes) > 1 and outcome.finish_reason == "stop"
