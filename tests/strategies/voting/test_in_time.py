"""Votes end within their seconds: no wave is begun that the time left cannot hold, and no path that waits for a row."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies import strategies
from reason_engine.types import GenerateRequest, Limits
from tests.strategies.chat import ASKED, Clock, StepClock

WAVES: list[tuple[str, dict[str, Any]]] = [
    ("auto", {}),
    ("confidence", {"keep": 1.0, "warmup": 3}),
    ("self-consistency", {"adaptive": True}),
    ("best-of-n", {"adaptive": True}),
    ("best-of-n", {"adaptive": True, "choose": "vote"}),
]
every_vote = pytest.mark.parametrize(("name", "fields"), WAVES)


def scattered(prompt: str, seed: int, index: int) -> str:
    """Answers that never agree, in 100 to 160 tokens."""
    return "so " * (100 + 13 * (seed % 6)) + f"\nAnswer: {seed % 97}"


def waves(engine: Scripted) -> list[int]:
    return [request.n for request in engine.log]


def told(outcome: Outcome) -> list[str]:
    return [str(node.notes["time"]) for node in outcome.trace.nodes if "time" in node.notes]


async def timed(
    monkeypatch: pytest.MonkeyPatch, name: str, fields: dict[str, Any], clock: tuple[float, float], most: float | None
) -> tuple[Outcome, float, Scripted]:
    made = StepClock(monkeypatch, *clock)
    engine, began = Scripted(scattered, gate=made.gate), made.now
    strategy = strategies.get(name).model_validate({"n": 16, **fields})
    outcome = await solve(strategy, ASKED, engine, limits=Limits(seconds=most), seed=1)
    return outcome, made.now - began, engine


@every_vote
@pytest.mark.parametrize("clock", [(0.05, 0.004), (0.09, 0.004), (0.02, 0.03), (0.0, 0.06), (0.15, 0.01)])
async def test_a_vote_ends_within_its_seconds(
    name: str, fields: dict[str, Any], clock: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, took, _ = await timed(monkeypatch, name, fields, clock, 60.0)
    assert outcome.stopped == "done"
    assert took < 60
    assert (outcome.cut, outcome.finish_reason) == (0, "stop")
    assert outcome.answer.value is not None
    assert outcome.samples >= 3


@every_vote
async def test_the_time_that_is_left_is_used_and_what_ends_the_vote_is_told(
    name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, took, engine = await timed(monkeypatch, name, fields, (0.09, 0.004), 60.0)
    assert outcome.samples > 6 and took > 30
    assert len(waves(engine)) > 1
    assert outcome.samples == 16 or told(outcome) == ["no time for another wave"]


@every_vote
async def test_without_a_deadline_and_with_enough_time_the_clock_changes_nothing(
    name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    free, _, one = await timed(monkeypatch, name, fields, (0.15, 0.01), None)
    enough, _, other = await timed(monkeypatch, name, fields, (0.15, 0.01), 3000.0)
    assert waves(one) == waves(other)
    assert free.answer == enough.answer and told(free) == told(enough) == []


async def test_a_wave_is_as_wide_as_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waves are narrower than what could settle the vote where rows are dear, and whole where they are not."""
    _, _, dear = await timed(monkeypatch, "self-consistency", {"adaptive": True}, (0.0, 0.04), 60.0)
    _, _, cheap = await timed(monkeypatch, "self-consistency", {"adaptive": True}, (0.1, 0.0005), 60.0)
    assert sum(waves(dear)) < sum(waves(cheap))


async def test_a_split_vote_that_time_ends_gives_the_leader_of_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _, engine = await timed(monkeypatch, "auto", {}, (0.2, 0.01), 60.0)
    assert outcome.samples == sum(waves(engine)) == 3
    assert told(outcome) == ["no time for another wave"]
    assert len(outcome.answer.votes) == 3


@pytest.mark.parametrize("name", ["self-consistency", "best-of-n"])
async def test_paths_that_wait_for_a_row_are_left_out_once_they_would_not_end(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rows, words = Clock(monkeypatch, 0.025), asyncio.Semaphore(4), 100

    async def four_rows(request: GenerateRequest, index: int, position: int) -> None:
        """An engine of four rows, each of whose tokens takes 0.025 seconds: the others wait until one is over."""
        if position == 0:
            await rows.acquire()
        await clock.gate(request, index, position)
        if position == words + 2:  # the end of the text
            rows.release()

    engine = Scripted(lambda p, s, i: "so " * words + f"\nAnswer: {i}", gate=four_rows)
    outcome = await solve(strategies.get(name).model_validate({"n": 16}), ASKED, engine, limits=Limits(seconds=40.0))
    assert outcome.stopped == "done"
    assert outcome.cut == 0
    assert outcome.samples in (8, 12)
    assert told(outcome) == [f"no time to begin {16 - outcome.samples} more paths"]
