"""What the vLLM tests share: the marks of their files, and how a tiny model is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import pytest

from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.types import Chunk, GenerateRequest, Sampling

MARKS = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here (make test-vllm)"),
    # of vLLM and torch, at import
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
GREEDY = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True)
EOS = 258


async def read(engine: VllmEngine, request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


async def run(
    engine: VllmEngine, prompt: str | tuple[int, ...] = "hello", *, id: str = "r", n: int = 1,
    adapter: str | None = None, sampling: Sampling = GREEDY,
) -> list[Chunk]:  # fmt: skip
    return await read(engine, GenerateRequest(id, prompt, n=n, sampling=sampling, adapter=adapter))


def text(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def ids(chunks: list[Chunk], index: int = 0) -> tuple[int, ...]:
    return tuple(token for chunk in chunks if chunk.index == index for token in chunk.token_ids)


async def idle(engine: VllmEngine) -> bool:
    """Whether nothing runs in vLLM's scheduler, after all that was asked of its thread."""
    backend: Any = engine._backend
    scheduler = backend._llm.engine_core.engine_core.scheduler
    unfinished = await backend._call(scheduler.get_num_unfinished_requests)
    return unfinished == 0 and (await engine.health()).running == 0


class Endless:
    """A request that would run to the end of the context, read until each of its samples has begun."""

    def __init__(self, engine: VllmEngine, n: int) -> None:
        self.engine, self.n = engine, n
        sampling = Sampling(temperature=1.0, max_tokens=2000, ignore_eos=True)
        self.stream: AsyncIterator[Chunk] = engine.generate(GenerateRequest("e", "hello", n=n, sampling=sampling))
        self.chunks: list[Chunk] = []

    async def begin(self) -> None:
        while len({chunk.index for chunk in self.chunks}) < self.n:
            self.chunks.append(await anext(self.stream))
