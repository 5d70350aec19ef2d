"""What the tests of the remote engine share: it is started, asked, and its pieces are put together."""

from __future__ import annotations

from typing import Any

from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.types import Chunk, GenerateRequest, Message, Sampling

HELLO = (Message("user", "hello"),)


class Running:
    """`async with Running(engine)`: started, then closed."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self.engine = engine

    async def __aenter__(self) -> OpenAIEngine:
        await self.engine.start()
        return self.engine

    async def __aexit__(self, *error: object) -> None:
        await self.engine.close()


async def read(engine: OpenAIEngine, n: int = 1, prompt: str | tuple[int, ...] | None = None, **sampling: Any):
    asked = engine.render_chat(HELLO) if prompt is None else prompt
    request = GenerateRequest("r", asked, n=n, sampling=Sampling(**sampling))
    return [chunk async for chunk in engine.generate(request)]


def text(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def tokens(chunks: list[Chunk]) -> int:
    return sum(chunk.token_count for chunk in chunks)
