"""A server over the scripted engine: in process through ASGI, or on a loopback socket where streaming matters."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import httpx2
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Profile
from reason_engine.serving.app import create_app
from reason_engine.settings import Settings


def steps(prompt: str, seed: int, index: int) -> str:
    """Two lines of reasoning, then 4 two times out of three."""
    return f"two and two\nmake four\nAnswer: {5 if seed % 3 == 0 else 4}"


@dataclass
class House:
    """An application and the ways to talk to it."""

    engine: Scripted
    app: FastAPI
    http: httpx2.AsyncClient
    client: openai.AsyncOpenAI
    base: str = "http://127.0.0.1"

    async def chat(self, **body: object) -> httpx2.Response:
        given = {"model": "scripted", "messages": [{"role": "user", "content": "What is 2 + 2?"}], **body}
        return await self.http.post("/v1/chat/completions", json=given)


Open = Callable[..., AbstractAsyncContextManager[House]]


class Server(uvicorn.Server):
    """Ends when `leave` is set, not at the next look a tenth of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leave = asyncio.Event()

    async def main_loop(self) -> None:
        await self.leave.wait()


@asynccontextmanager
async def _local(
    engine: Scripted | None = None,
    profile: Profile | None = None,
    settings: Settings | None = None,
    key: str = "none",
    started: bool = True,
) -> AsyncIterator[House]:
    engine = engine or Scripted(steps)
    if started:
        await engine.start()
    app = create_app(engine, profile, settings)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http,
        openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1",
            api_key=key,
            http_client=httpx2.AsyncClient(transport=transport),
            max_retries=0,
        ) as client,
    ):
        yield House(engine, app, http, client)
    await app.state.service.equality.close()


@asynccontextmanager
async def _live(
    engine: Scripted | None = None,
    profile: Profile | None = None,
    settings: Settings | None = None,
    key: str = "none",
    started: bool = True,
) -> AsyncIterator[House]:
    engine = engine or Scripted(steps)
    if started:
        await engine.start()
    app = create_app(engine, profile, settings)
    server = Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    )
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0)
        if task.done():
            task.result()
    port = server.servers[0].sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    try:
        # verify: reading the certificates that a loopback socket needs not takes longer than most tests
        async with (
            httpx2.AsyncClient(base_url=base, timeout=30, verify=False) as http,
            openai.AsyncOpenAI(
                base_url=f"{base}/v1",
                api_key=key,
                http_client=httpx2.AsyncClient(timeout=30, verify=False),
                max_retries=0,
            ) as client,
        ):
            yield House(engine, app, http, client, base)
    finally:
        server.leave.set()
        await task


@pytest.fixture
def local() -> Open:
    """Opens an application in process: `async with local(engine, profile, settings) as house`. Streams arrive whole."""
    return _local


@pytest.fixture
def live() -> Open:
    """The same on a loopback socket: streams arrive as they are written."""
    return _live


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Lets the loop run until a condition holds; fails after 10 seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    return wait
