"""The process around the application: the engine starts behind it, a signal drains it, a dead engine ends it."""

import asyncio
import json
import logging
import signal
from dataclasses import replace

import httpx2
import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineDead, ModelLoadError
from reason_engine.serving import server as module
from reason_engine.serving.app import create_app
from reason_engine.serving.server import Server, server_for
from reason_engine.settings import Settings


def server_of(engine: Scripted, **settings: object) -> Server:
    return server_for(create_app(engine, None, Settings(**settings)), "127.0.0.1", 0, log_level="critical")


async def base_of(server: Server) -> str:
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.001)
    return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"


async def test_it_lives_while_the_model_loads_and_then_is_ready(eventually) -> None:
    loaded = asyncio.Event()

    class Slow(Scripted):
        async def start(self) -> None:
            await loaded.wait()
            await super().start()

    engine = Slow()
    server = server_of(engine)
    task = asyncio.create_task(server.serve_until_stopped())
    async with httpx2.AsyncClient(base_url=await base_of(server)) as http:
        assert (await http.get("/health/live")).status_code == 200
        ready = await http.get("/health/ready")
        assert ready.status_code == 503 and ready.json()["status"] == "loading"
        got = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
        assert got.status_code == 503 and got.json()["error"]["code"] == "loading" and got.headers["retry-after"]
        loaded.set()
        await eventually(lambda: not server._service.gate.loading)
        assert (await http.get("/health/ready")).status_code == 200
    server.handle_exit(signal.SIGTERM, None)
    await task
    assert not (await engine.health()).ready, "who started the engine closes it"


async def test_an_engine_that_cannot_start_ends_the_server_with_its_reason() -> None:
    class Broken(Scripted):
        async def start(self) -> None:
            raise ModelLoadError("model.safetensors: header is 2 bytes long")

    with pytest.raises(ModelLoadError, match="header is 2 bytes long"):
        await server_of(Broken()).serve_until_stopped()


async def test_a_dead_engine_ends_the_server(monkeypatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.005)
    engine = Scripted()
    server = server_of(engine)
    task = asyncio.create_task(server.serve_until_stopped())
    await base_of(server)
    engine.die()
    with pytest.raises(EngineDead):
        await task


async def test_the_first_signal_drains_and_nothing_is_truncated(eventually) -> None:
    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        await go.wait()

    engine = Scripted(lambda prompt, seed, index: "a b c", gate=gate)
    server = server_of(engine)
    task = asyncio.create_task(server.serve_until_stopped())
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with httpx2.AsyncClient(base_url=await base_of(server)) as http:
        await eventually(lambda: not server._service.gate.loading)
        whole = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        stream = asyncio.create_task(http.post("/v1/chat/completions", json={**body, "stream": True}))
        await eventually(lambda: engine.running == 2)
        server.handle_exit(signal.SIGTERM, None)
        await eventually(lambda: server._service.gate.draining)
        refused = await http.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        assert refused.headers["retry-after"]
        assert (await http.get("/health/ready")).json()["status"] == "draining"
        assert (await http.get("/health/live")).status_code == 200
        go.set()
        assert (await whole).json()["choices"][0]["message"]["content"] == "a b c"
        assert (await stream).text.endswith("data: [DONE]\n\n")
    await task


async def test_what_outlives_the_drain_is_told_so(eventually) -> None:
    never = asyncio.Event()

    async def gate(request, index, position) -> None:
        if position == 1:
            await never.wait()

    engine = Scripted(lambda prompt, seed, index: "a b c", gate=gate)
    server = server_of(engine, drain_seconds=0.0)
    task = asyncio.create_task(server.serve_until_stopped())
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with httpx2.AsyncClient(base_url=await base_of(server)) as http:
        await eventually(lambda: not server._service.gate.loading)
        whole = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            await eventually(lambda: engine.running == 2)
            server.handle_exit(signal.SIGTERM, None)
            data = [line async for line in stream.aiter_lines() if line.startswith("data: ")]
        assert json.loads(data[-2][6:])["error"]["code"] == "draining" and data[-1] == "data: [DONE]"
        assert (await whole).status_code == 503
        await task
    assert engine.running == 0


async def test_one_line_says_what_was_found_of_the_models_format(eventually, caplog) -> None:
    engine = Scripted()
    engine.info = replace(engine.info, found=("thoughts: qwen3 (a rule)", "tool calls: hermes (another)"))
    server = server_of(engine)
    with caplog.at_level(logging.INFO, "reason_engine.serving"):
        task = asyncio.create_task(server.serve_until_stopped())
        await base_of(server)
        await eventually(lambda: not server._service.gate.loading)
        server.handle_exit(signal.SIGTERM, None)
        await task
    (line,) = (record.getMessage() for record in caplog.records if "thoughts" in record.getMessage())
    assert line.endswith(": thoughts: qwen3 (a rule); tool calls: hermes (another)")
