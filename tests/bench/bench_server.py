"""What the server costs on top of its engine: 16 concurrent `direct` streams of a random model of at least 100M
parameters, over HTTP and on the bare embedded engine, in alternating pairs; and the server's own processor time per
streamed token on the scripted engine, where nothing else works.

    python -m tests.bench.bench_server [--pairs 10] [--tokens 64]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from reason_engine.contracts import Engine
from reason_engine.engines.open import open_engine
from reason_engine.settings import load_settings
from reason_engine.types import GenerateRequest, Message, Sampling
from tests.bench._measure import client, machine, paired, server, stream_tokens
from tests.models import write_model

STREAMS = 16
SIZE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", **SIZE)
        parameters = (model / "model.safetensors").stat().st_size // 4
        with server(str(model)) as started:
            served, bare = asyncio.run(_pairs(started.url, model, options.pairs, options.tokens))
    ratio = paired([s / b for s, b in zip(served, bare, strict=True)])
    with server("--engine", "scripted") as started:
        before, begun = started.cpu(), time.monotonic()
        tokens = asyncio.run(_scripted(started.url, 200))
        spent, wall = started.cpu() - before, time.monotonic() - begun
    print(json.dumps({
        "machine": machine(),
        "parameters": parameters,
        "served_tokens_per_second": [round(s, 1) for s in served],
        "bare_tokens_per_second": [round(b, 1) for b in bare],
        "server_over_bare": str(ratio),
        "scripted_tokens": tokens,
        "server_cpu_microseconds_per_streamed_token": round(1e6 * spent / tokens, 1),
        "scripted_tokens_per_second": round(tokens / wall),
    }, indent=2))  # fmt: skip


async def _pairs(url: str, model: Path, pairs: int, tokens: int) -> tuple[list[float], list[float]]:
    engine = open_engine(load_settings({"model": str(model)}), inline=False)
    await engine.start()
    served, bare = list[float](), list[float]()
    try:
        async with client(url) as http:
            body = {"model": "model", "max_tokens": tokens, "temperature": 1.0}
            for number in range(-1, pairs):
                runs = [lambda n=number: _bare(engine, tokens, n), lambda n=number: _served(http, body, n)]
                order = runs if number % 2 else runs[::-1]
                rates = [await run() for run in order]
                if number >= 0:  # the first pair warms both up
                    b, s = rates if number % 2 else rates[::-1]
                    bare.append(b)
                    served.append(s)
    finally:
        await engine.close()
    return served, bare


def _question(number: int, stream: int) -> str:
    return f"Question {number} of stream {stream}: tell me about it."


async def _served(http: object, body: dict[str, object], number: int) -> float:
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                stream_tokens(
                    http,  # pyright: ignore[reportArgumentType]
                    {**body, "seed": i, "messages": [{"role": "user", "content": _question(number, i)}]},
                )
            )
            for i in range(STREAMS)
        ]
    return sum(task.result() for task in tasks) / (time.monotonic() - begun)


async def _bare(engine: Engine, tokens: int, number: int) -> float:
    async def one(stream: int) -> int:
        prompt = engine.render_chat([Message("user", _question(number, stream))])
        sampling = Sampling(max_tokens=tokens, seed=stream, logprobs=0)
        request = GenerateRequest(f"bare-{number}-{stream}", prompt, sampling=sampling)
        return sum([chunk.token_count async for chunk in engine.generate(request)])

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(i)) for i in range(STREAMS)]
    return sum(task.result() for task in tasks) / (time.monotonic() - begun)


async def _scripted(url: str, words: int) -> int:
    question = " ".join(f"word{i}" for i in range(words))
    async with client(url) as http, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                stream_tokens(http, {"model": "reason-nano", "messages": [{"role": "user", "content": question}]})
            )
            for _ in range(STREAMS)
        ]
    return sum(task.result() for task in tasks)


if __name__ == "__main__":
    main()
