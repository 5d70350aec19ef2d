"""A vote through our server beside raw vLLM on the same engine; streams of our server beside those of vLLM's own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from reason_engine.engines.vllm.release import preload_environment
from reason_engine.profile import Profile
from reason_engine.serving.app import create_app
from reason_engine.serving.server import server_for
from reason_engine.settings import load_settings
from tests.bench._measure import client, free_port
from tests.bench._vllm_arms import Arms, RecordingEngine, Spent

QUESTION = (
    "A farm sells {0} boxes of eggs with {1} eggs each on Monday and {2} boxes on Tuesday. How many eggs does it sell?"
)


@asynccontextmanager
async def served(engine: RecordingEngine) -> AsyncGenerator[httpx2.AsyncClient]:
    """Our server around this engine, in this process, and a client of it."""
    settings = load_settings({"served_name": "model", "port": free_port(), "log_level": "warning"})
    server = server_for(create_app(engine, Profile(), settings), "127.0.0.1", settings.port)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.02)
        async with client(f"http://127.0.0.1:{settings.port}") as http:
            yield http
    finally:
        server.should_exit = True
        await serving


async def vote(http: httpx2.AsyncClient, engine: RecordingEngine, arms: Arms, number: int, tokens: int) -> list[Spent]:
    """[ours, raw] for a vote of sixteen on one question: the same prompt, seeds and texts, each with nothing cached.
    The first vote is not timed; it tells what raw vLLM is to be asked for."""
    question = QUESTION.format(7 + number, 6 + number % 5, 3 + number * 2)
    body = {
        "model": "model", "messages": [{"role": "user", "content": question}], "max_tokens": tokens, "seed": number,
        "temperature": 0.7, "reasoning": {"strategy": "self-consistency", "n": 16, "answer_kind": "number"},
    }  # fmt: skip
    engine.asked = []
    await _voted(http, arms, body)
    [drawn] = [request for request in engine.asked if request.n == 16]
    turns = [lambda: _voted(http, arms, body), lambda: arms.replay(drawn)]
    made = [await turn() for turn in (turns if number % 2 else turns[::-1])]
    return made if number % 2 else made[::-1]


async def _voted(http: httpx2.AsyncClient, arms: Arms, body: Mapping[str, Any]) -> Spent:
    await arms.reset()
    clock, cpu = time.perf_counter(), time.process_time()
    response = await http.post("/v1/chat/completions", json=body)
    spent, used = time.perf_counter() - clock, time.process_time() - cpu
    response.raise_for_status()
    return Spent(spent, used, response.json()["usage"]["completion_tokens"])


@dataclass(frozen=True)
class Streams:
    """What a crowd of streams took: tokens a second over all, and the median wait for a first token."""

    rate: float
    first: float


async def streams(http: httpx2.AsyncClient, number: int, count: int, tokens: int, more: Mapping[str, Any]) -> Streams:
    """`count` streams at once, each with a question of its own."""
    begun = time.perf_counter()

    async def one(place: int) -> tuple[float, int]:
        body = {
            "model": "model", "max_tokens": tokens, "temperature": 0.7, "seed": place, "ignore_eos": True,
            "messages": [{"role": "user", "content": QUESTION.format(number + 2, place + 2, number + place)}],
            "stream": True, "stream_options": {"include_usage": True}, **more,
        }  # fmt: skip
        first, made = 0.0, 0
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                said = any(choice["delta"].get("content") for choice in event.get("choices", ()))
                first = first or (time.perf_counter() - begun if said else 0.0)
                made = (event.get("usage") or {}).get("completion_tokens", made)
        return first, made

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(place)) for place in range(count)]
    spent = time.perf_counter() - begun
    waits = sorted(task.result()[0] for task in tasks)
    return Streams(sum(task.result()[1] for task in tasks) / spent, waits[len(waits) // 2])


@contextmanager
def process(command: list[str]) -> Iterator[str]:
    """A server in a process of its own, by its address, once it answers."""
    port = free_port()
    url, begun = f"http://127.0.0.1:{port}", time.monotonic()
    environment = {**os.environ, **preload_environment(), "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    with subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=subprocess.DEVNULL) as started:
        try:
            while not _answers(url):
                if started.poll() is not None or time.monotonic() - begun > 900:
                    raise SystemExit(f"{' '.join(command)} did not start")
                time.sleep(0.2)
            yield url
        finally:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()


def our_command(model: Path, settings: Mapping[str, Any], folder: Path) -> list[str]:
    """`reason serve` with these settings of vLLM's."""
    path = folder / "reason.yaml"
    path.write_text(json.dumps({"vllm": dict(settings), "served_name": "model", "log_level": "warning"}))
    program = [sys.executable, "-m", "reason_engine.cli.main", "serve", str(model)]
    return [*program, "--engine", "vllm", "--config", str(path)]


def vllm_command(model: Path, arguments: Mapping[str, Any]) -> list[str]:
    """vLLM's own server with the same arguments."""
    taken = (
        "dtype", "block_size", "kv_cache_memory_bytes", "max_num_batched_tokens", "gpu_memory_utilization",
        "max_model_len", "max_num_seqs", "tensor_parallel_size", "seed",
    )  # fmt: skip
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "model", "--disable-uvicorn-access-log"]
    for name in taken:
        if name in arguments:
            command += [f"--{name.replace('_', '-')}", str(arguments[name])]
    if arguments.get("enforce_eager"):
        command.append("--enforce-eager")
    if arguments.get("enable_chunked_prefill") is False:
        command.append("--no-enable-chunked-prefill")
    return command


def _answers(url: str) -> bool:
    for path in ("/health/ready", "/health"):
        try:
            if httpx2.get(f"{url}{path}", timeout=2).status_code == 200:
                return True
        except httpx2.HTTPError:
            return False
    return False
