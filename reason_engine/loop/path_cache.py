"""Paths that are drawn once and used by every strategy that would draw such paths: an engine in front of an engine.

A vote of 16 holds the votes of 4 and of 8, and an adaptive vote is one of its beginnings. So the cost-accuracy curve of
all of them takes one draw of 16 paths a problem. A path is the same for whoever asks for the same prompt with the same
sampling, seed aside; each `View` reads from the first path on.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from reason_engine.contracts import Capabilities, Engine, Health, Parsed
from reason_engine.types import (
    Choice,
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    Message,
    ModelInfo,
    ScoreRequest,
    Scores,
)

_ids = count()


@dataclass
class Shelf:
    """Whole paths of one kind, each as one chunk, and what their prompt cost."""

    paths: list[Chunk] = field(default_factory=list[Chunk])
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Pool:
    """The paths of one problem. `drawn`: tokens that the engine really generated for it."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.shelves: dict[str, Shelf] = {}
        self.drawn = 0

    async def paths(self, key: str, request: GenerateRequest, begin: int) -> list[Chunk]:
        """Paths begin to begin + n of this kind; what is not there yet is drawn in one request."""
        shelf = self.shelves.setdefault(key, Shelf())
        async with shelf.lock:
            have, want = len(shelf.paths), begin + request.n
            if want > have:
                seed = (zlib.crc32(f"{self.name} {key}".encode()) + have) % 2**31
                fresh = replace(
                    request,
                    id=f"pool-{next(_ids)}",
                    n=want - have,
                    sampling=replace(request.sampling, seed=seed),
                )
                shelf.paths += await self._draw(fresh)
        return shelf.paths[begin:want]

    async def _draw(self, request: GenerateRequest) -> list[Chunk]:
        whole = [Chunk(index) for index in range(request.n)]
        async for chunk in self.engine.generate(request):
            whole[chunk.index] = _joined(whole[chunk.index], chunk)
            self.drawn += chunk.token_count
        return whole


class View:
    """One strategy's use of a pool; an engine to everyone else. `spent`: tokens by the kind of path."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self._engine = pool, pool.engine
        self._read = Counter[str]()
        self.spent = Counter[str]()

    @property
    def caps(self) -> Capabilities:
        return self._engine.caps

    @property
    def info(self) -> ModelInfo:
        return self._engine.info

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def health(self) -> Health:
        return await self._engine.health()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Whole paths, one chunk each. A continuation of token ids goes to the engine itself."""
        if not isinstance(request.prompt, str):
            async for chunk in self._engine.generate(request):
                self.spent["continued"] += chunk.token_count
                yield chunk
            return
        key = repr((request.prompt, replace(request.sampling, seed=0), request.adapter))
        begin = self._read[key]
        self._read[key] += request.n
        for index, path in enumerate(await self._pool.paths(key, request, begin)):
            self.spent[key] += path.token_count
            yield replace(path, index=index, prompt_tokens=path.prompt_tokens if index == 0 else 0)

    async def abort(self, request_id: str, index: int | None = None) -> None:
        await self._engine.abort(request_id, index)

    async def choose(self, request: ChoiceRequest) -> Choice:
        return await self._engine.choose(request)

    async def score(self, request: ScoreRequest) -> Scores:
        return await self._engine.score(request)

    async def load_adapter(self, name: str, path: str) -> None:
        await self._engine.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    def adapters(self) -> tuple[str, ...]:
        return self._engine.adapters()

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        await self._engine.draft_from(texts)

    def tokenize(self, text: str) -> list[int]:
        return self._engine.tokenize(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return self._engine.detokenize(token_ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        return self._engine.render_chat(messages, tools=tools, think=think, prefill=prefill)

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        return self._engine.parse(text, prompt=prompt)


def _joined(whole: Chunk, chunk: Chunk) -> Chunk:
    return replace(
        whole,
        text=whole.text + chunk.text,
        token_ids=whole.token_ids + chunk.token_ids,
        token_count=whole.token_count + chunk.token_count,
        logprobs=whole.logprobs + chunk.logprobs,
        finish_reason=chunk.finish_reason or whole.finish_reason,
        stop_reason=chunk.stop_reason if chunk.finish_reason else whole.stop_reason,
        prompt_tokens=whole.prompt_tokens + chunk.prompt_tokens,
    )
