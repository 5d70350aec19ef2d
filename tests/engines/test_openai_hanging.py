"""Endpoints that hang: requests leave them for another one, and no request outlives its own seconds there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.errors import EngineError
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Problem
from tests.engines.asking import Running, read, text
from tests.engines.endpoint import Event, choice, encoded, usage

BRIEF = {"timeout": 0.3, "connect_timeout": 0.3, "max_retries": 0, "max_wait": 0, "probe": False, "prefill": "no"}
WHOLE = (choice(0, content="whole"), choice(0, finish="stop"), usage(4, 2))
LIST = json.dumps({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "someone"}]}).encode()


@asynccontextmanager
async def server(events: Sequence[Event], *, ends: bool, silent: bool = False) -> AsyncIterator[tuple[str, list[str]]]:
    """The address of a server on this machine that lists a model and answers with these events, and the paths that it
    was asked for. Without `ends` its answer stays open; a `silent` one sends not even a head."""
    asked, left = list[str](), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, path, _ = head.decode().split(" ", 2)
        length = next((int(line[15:]) for line in head.decode().lower().split("\r\n") if "content-length:" in line), 0)
        await reader.readexactly(length)
        if path.endswith("/models"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(LIST) + LIST)
        elif path.endswith("/completions"):
            asked.append(path)
            if not silent:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
                writer.write(b"".join(map(encoded, events)) + (b"data: [DONE]\n\n" if ends else b""))
                await writer.drain()
            if not ends:
                await left.wait()
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    made = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{made.sockets[0].getsockname()[1]}/v1", asked
    finally:
        left.set()
        made.close()


def engine(*urls: str, **config: Any) -> OpenAIEngine:
    return OpenAIEngine(OpenAIConfig.model_validate({"base_url": urls[0], "replicas": urls[1:], **BRIEF, **config}))


@pytest.mark.parametrize(
    ("said", "silent"), [((), True), ((), False), ((choice(0, content="who"),), False)], ids=["nothing", "head", "some"]
)
async def test_a_request_leaves_an_endpoint_that_hangs_for_another_one(
    said: Sequence[Event], silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reason_engine.engines.openai.balance.rank", lambda key, url: url != stuck)
    async with (
        asyncio.timeout(30),
        server(said, ends=False, silent=silent) as (stuck, first),
        server(WHOLE, ends=True) as (well, other),
        Running(engine(stuck, well)) as made,
    ):
        assert text(await read(made)) == "whole"
        states = {one.name: one.up for one in made.replicas}
    assert (len(first), len(other)) == (1, 1)
    assert sorted(states.values()) == [False, True]


async def test_alone_it_ends_with_an_error_that_says_so() -> None:
    async with asyncio.timeout(30), server((), ends=False, silent=True) as (stuck, _), Running(engine(stuck)) as made:
        with pytest.raises(EngineError, match="did not answer in time"):
            await read(made)


@pytest.mark.parametrize("name", ["direct", "self-consistency"])
async def test_a_request_ends_with_its_own_seconds_wherever_it_hangs(name: str) -> None:
    async with (
        asyncio.timeout(30),
        server((), ends=False, silent=True) as (stuck, asked),
        Running(engine(stuck, timeout=600)) as made,
    ):
        outcome = await solve(strategies.get(name)(), Problem("2 + 2?"), made, limits=Limits(seconds=0.3))
        assert made._running == {}
    assert (outcome.stopped, outcome.content) == ("budget-seconds", "")
    assert asked


async def test_what_came_before_it_hung_is_kept_at_the_deadline() -> None:
    said = choice(0, content="So far"), choice(0, content=" so good. ")
    async with asyncio.timeout(30), server(said, ends=False) as (stuck, _), Running(engine(stuck, timeout=600)) as made:
        outcome = await solve(strategies.get("direct")(), Problem("?"), made, limits=Limits(seconds=0.5))
    assert (outcome.stopped, outcome.finish_reason) == ("budget-seconds", "length")
    assert outcome.content == "So far so good. "


@pytest.mark.parametrize("field", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon"])
def test_limits_that_are_none_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        OpenAIConfig.model_validate({"base_url": "http://a/v1", field: value})
