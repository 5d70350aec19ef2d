"""Requests of the vLLM engine that end early, and the engine that ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.errors import EngineDead, RequestError
from reason_engine.types import GenerateRequest, Sampling
from tests.engines.vllm.tiny import MARKS, Endless, idle, ids, run

pytestmark = MARKS


async def test_abort_ends_every_sample_with_a_last_chunk(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    endless = Endless(engine, 4)
    await endless.begin()
    assert (await engine.health()).running == 4
    await engine.abort("e")
    endless.chunks += [chunk async for chunk in endless.stream]
    last = {chunk.index: chunk.finish_reason for chunk in endless.chunks if chunk.finish_reason}
    assert last == dict.fromkeys(range(4), "abort")
    assert await idle(engine)
    counted = sum(chunk.token_count for chunk in endless.chunks)
    assert (await engine.health()).generated_tokens - before == counted
    await engine.abort("e")
    await engine.abort("never seen")


@pytest.mark.parametrize("greedy", [True, False])
async def test_a_reader_that_leaves_stops_the_engine(engine: VllmEngine, greedy: bool) -> None:
    sampling = Sampling(temperature=0.0 if greedy else 1.0, max_tokens=2000, ignore_eos=True)
    stream = engine.generate(GenerateRequest("e", "hello", n=3, sampling=sampling))
    await anext(stream)
    await stream.aclose()
    assert await idle(engine)


async def test_a_cancelled_reader_stops_the_engine(engine: VllmEngine) -> None:
    endless = Endless(engine, 2)
    await endless.begin()
    begun = asyncio.Event()

    async def reading() -> None:
        async for _ in endless.stream:
            begun.set()

    task = asyncio.create_task(reading())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await endless.stream.aclose()
    assert await idle(engine)


async def test_an_id_is_taken_while_it_runs(engine: VllmEngine) -> None:
    endless = Endless(engine, 1)
    await endless.begin()
    with pytest.raises(RequestError, match="already running"):
        await run(engine, id="e")
    await endless.stream.aclose()
    assert ids(await run(engine, id="e"))


async def test_a_failing_step_kills_the_engine_and_says_so(folder: Path) -> None:
    engine = VllmEngine(VllmConfig(model=str(folder), dtype="float32"))
    await engine.start()
    endless = Endless(engine, 2)
    await endless.begin()
    backend: Any = engine._backend

    def broken() -> Any:
        raise RuntimeError("out of memory")

    backend._llm.step = broken
    with pytest.raises(EngineDead, match="out of memory"):
        async for _ in endless.stream:
            pass
    with pytest.raises(EngineDead):
        await run(engine)
    health = await engine.health()
    assert (health.ready, health.live) == (False, False)
    await engine.close()


async def test_a_closed_engine_ends_its_requests_and_takes_no_more(folder: Path) -> None:
    engine = VllmEngine(VllmConfig(model=str(folder), dtype="float32"))
    with pytest.raises(EngineDead):
        await run(engine)
    assert not (await engine.health()).ready
    await engine.start()
    endless = Endless(engine, 2)
    await endless.begin()
    await engine.close()
    await engine.close()
    left = [chunk async for chunk in endless.stream]
    last = {chunk.index: chunk.finish_reason for chunk in left}
    assert last == {0: "abort", 1: "abort"}
    with pytest.raises(EngineDead):
        await run(engine)
