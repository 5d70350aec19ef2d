"""The remote engine where the endpoint refuses, breaks off or is left: what a caller is told, and what is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.errors import ContextLengthExceeded, EngineBusy, EngineDead, EngineError, RequestError, UnknownModel
from reason_engine.types import GenerateRequest
from tests.engines.asking import HELLO, Running, read, text, tokens
from tests.engines.endpoint import Endpoint, Event, choice

ERRORS = [
    (400, {"message": "too long", "code": "context_length_exceeded"}, ContextLengthExceeded),
    (400, {"message": "This model's maximum context length is 10 tokens"}, ContextLengthExceeded),
    (400, {"message": "bad top_p", "param": "top_p", "code": "range"}, RequestError),
    (422, {"message": "bad"}, RequestError),
    (404, {"message": "no model"}, UnknownModel),
    (401, {"message": "wrong key"}, EngineError),
    (429, {"message": "slow down"}, EngineBusy),
    (503, {"message": "loading"}, EngineBusy),
    (500, {"message": "oops"}, EngineError),
]


@pytest.mark.parametrize(("status", "error", "kind"), ERRORS)
async def test_refusals_are_typed(status: int, error: Event, kind: type[Exception]) -> None:
    endpoint = Endpoint(lambda body: (status, error))
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(kind, match=error["message"]) as caught:
            await read(engine)
        assert (await engine.health()).running == 0
    assert type(caught.value) is kind
    if kind is RequestError:
        assert caught.value.param == error.get("param")


async def test_the_sdk_retries() -> None:
    answers = iter([(500, {"message": "once"}), [choice(content="x", finish="stop")]])
    endpoint = Endpoint(lambda body: next(answers))
    async with Running(endpoint.engine(max_retries=1)) as engine:
        assert text(await read(engine)) == "x"


async def test_an_unreachable_endpoint_is_dead() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(refuse))
    engine = OpenAIEngine(OpenAIConfig(base_url="http://endpoint/v1", max_retries=0), http_client=client)
    with pytest.raises(EngineDead, match="refused"):
        await engine.start()
    health = await engine.health()
    assert (health.ready, health.live) == (False, False)
    await engine.close()


async def test_a_timeout_is_an_engine_error() -> None:
    def late(body: dict[str, Any]) -> Any:
        raise httpx2.ReadTimeout("late")

    async with Running(Endpoint(late).engine()) as engine:
        with pytest.raises(EngineError, match="in time"):
            await read(engine)


async def test_an_error_inside_the_stream_is_an_engine_error() -> None:
    endpoint = Endpoint(lambda body: [choice(content="a"), {"error": {"message": "out of memory"}}])
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(EngineError, match="out of memory"):
            await read(engine)


async def test_a_connection_lost_in_the_middle_is_dead() -> None:
    async def torn() -> AsyncIterator[Event]:
        yield choice(content="a")
        raise httpx2.ReadError("torn")

    async with Running(Endpoint(lambda body: torn()).engine()) as engine:
        with pytest.raises(EngineDead, match="torn"):
            await read(engine)


async def test_a_stream_that_ends_early_is_an_engine_error() -> None:
    async with Running(Endpoint(lambda body: [choice(content="a")]).engine()) as engine:
        with pytest.raises(EngineError, match="before the answer was finished"):
            await read(engine)


class Endless:
    """A script that sends `a` for ever, and says when somebody reads."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def events(self) -> AsyncIterator[Event]:
        yield choice(0, content="a")
        yield choice(1, content="b")
        self.reached.set()
        await asyncio.Event().wait()


async def test_abort_closes_the_connection_and_ends_every_sample() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    async with Running(endpoint.engine()) as engine:
        reading = asyncio.create_task(read(engine, n=2))
        await endless.reached.wait()
        assert ((await engine.health()).running, endpoint.open) == (2, 1)
        await engine.abort("unknown")
        await engine.abort("r")
        chunks = await reading
        assert ((await engine.health()).running, endpoint.open) == (0, 0)
    assert (text(chunks, 0), text(chunks, 1), tokens(chunks)) == ("a", "b", 2)
    assert [(c.index, c.finish_reason) for c in chunks[-2:]] == [(0, "abort"), (1, "abort")]


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    async with Running(endpoint.engine()) as engine:
        stream = engine.generate(GenerateRequest("r", engine.render_chat(HELLO), n=2))
        await anext(stream)
        await stream.aclose()
        assert ((await engine.health()).running, endpoint.open) == (0, 0)


async def test_close_ends_what_runs() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    engine = endpoint.engine()
    await engine.start()
    reading = asyncio.create_task(read(engine, n=2))
    await endless.reached.wait()
    await engine.close()
    await engine.close()
    assert [c.finish_reason for c in await reading][-2:] == ["abort", "abort"]
    with pytest.raises(EngineDead):
        await read(engine)


async def test_an_id_is_taken_while_it_runs() -> None:
    endless = Endless()
    async with Running(Endpoint(lambda body: endless.events()).engine()) as engine:
        reading = asyncio.create_task(read(engine, n=2))
        await endless.reached.wait()
        with pytest.raises(RequestError):
            await read(engine)
        await engine.abort("r")
        await reading
