"""What is slow inside the embedded engine costs nothing that was there before: a step that outlasts a run's grace, and
the tables of a vocabulary."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded import worker as embedded_worker
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.grammar import Grammars
from reason_engine.engines.embedded.scheduler import Scheduler
from reason_engine.errors import RequestError
from reason_engine.runtime.solve import solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Limits, Problem, Structured
from tests.engines.contract import WARM, read, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    made = Embedded(tiny_qwen3, inline=True, max_rows=6)
    await made.start()
    yield made
    await made.close()


def outlasting(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Once a sample has ended beside others, the scheduler is in a step, and does not come back before it may go."""
    there, go, step = threading.Event(), threading.Event(), Scheduler.step

    def slow(scheduler: Scheduler) -> None:
        if 0 < scheduler.running < PATHS:
            there.set()
            go.wait(60)
        step(scheduler)

    monkeypatch.setattr(Scheduler, "step", slow)
    return there, go


PATHS = 6
SHORT_OR_LONG = Problem("Which letter?", structured=Structured(regex="e|f[c]{300}"))


async def test_a_step_that_outlasts_the_grace_leaves_the_vote(fresh: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that said `f` hang in the engine; those that said `e` have ended, and vote."""
    _, go = outlasting(monkeypatch)
    try:
        async with asyncio.timeout(30):
            outcome = await solve(
                SelfConsistency(n=PATHS, temperature=2), SHORT_OR_LONG, fresh, limits=Limits(seconds=2.0), seed=3
            )
        running = (await fresh.health()).running
    finally:
        go.set()
    assert running > 0  # the engine is still at it
    assert (outcome.stopped, outcome.answer.value) == ("budget-seconds", "e")
    (vote,) = outcome.answer.votes
    assert 0 < vote.count < PATHS
    assert outcome.answer.confidence == pytest.approx(vote.count / PATHS)


async def test_whoever_leaves_during_a_long_step_is_let_go(fresh: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    there, go = outlasting(monkeypatch)
    sampling = replace(WARM, max_tokens=400, temperature=2.0, structured=SHORT_OR_LONG.structured)
    try:
        async with asyncio.timeout(30):
            chunks: Any = fresh.generate(request("Which letter?", sampling, n=PATHS))
            async for chunk in chunks:
                if chunk.finish_reason:
                    break
            await asyncio.to_thread(there.wait, 20)
            await chunks.aclose()
        assert (await fresh.health()).running > 0
    finally:
        go.set()
    async with asyncio.timeout(30):
        while fresh._streams:  # the rest ends beside
            await asyncio.sleep(0)
    assert (await fresh.health()).running == 0


async def test_the_tables_of_the_vocabulary_are_no_part_of_a_constraints_time(
    fresh: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[bool]()
    tables = list[Grammars]()
    prepare = Grammars.prepare

    def noted(grammars: Grammars) -> None:
        prepare(grammars)
        tables.append(grammars)

    class Impatient(threading.Timer):
        """Is over as soon as it begins."""

        def start(self) -> None:
            made.append(bool(tables))
            super().start()

    monkeypatch.setattr(Grammars, "prepare", noted)
    monkeypatch.setattr(embedded_worker.threading, "Timer", Impatient)
    [sample] = await read(fresh, request("p", replace(WARM, structured=Structured(regex="[ab]c"))))
    assert sample.text in ("ac", "bc")
    assert made == [True]


async def test_a_tokenizer_that_no_tables_can_be_made_of_is_told(
    fresh: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llguidance

    def refuses(*args: object, **fields: object) -> None:
        raise ValueError("no such tokenizer")

    monkeypatch.setattr(llguidance, "LLTokenizer", refuses)
    with pytest.raises(RequestError, match="takes no constraints: no such tokenizer") as caught:
        await read(fresh, request("p", replace(WARM, structured=Structured(regex="[ab]c"))))
    assert caught.value.param == "response_format"
