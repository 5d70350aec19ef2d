"""Paths that are drawn once and used by every strategy that would draw such paths: an engine in front of an engine.

A vote of 16 holds the votes of 4 and of 8, and an adaptive vote is one of its beginnings. So the cost-accuracy curve of
all of them takes one draw of 16 paths a problem. A path is the same for whoever asks for the same prompt with the same
sampling, seed aside; each `View` reads from the first path on (`runtime.sampling.PathCache`).
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from reason_engine.contracts import Capabilities, Engine, Health
from reason_engine.engines.chat import ChatTextMethods
from reason_engine.runtime.sampling import PartialPath, PathCache, collect
from reason_engine.types import Choice, ChoiceRequest, Chunk, GenerateRequest, ModelInfo, ScoreRequest, Scores

_ids = count()


class Pool:
    """The paths of one problem. `drawn`: tokens that the engine really generated for it."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.cache = PathCache[PartialPath]()
        self.drawn = 0

    async def draw(self, key: str, n: int, request: GenerateRequest) -> list[PartialPath]:
        """N more paths of this kind, in one request to the engine."""
        seed = (zlib.crc32(f"{self.name} {key}".encode()) + len(self.cache.kept[key])) % 2**31
        sampling = replace(request.sampling, seed=seed)
        fresh = replace(request, id=f"pool-{next(_ids)}", n=n, sampling=sampling)
        paths = await collect(self.engine.generate(fresh))
        self.drawn += sum(path.tokens for path in paths)
        return paths


class View(ChatTextMethods):
    """One strategy's use of a pool; an engine to everyone else. `spent`: tokens by the kind of path."""

    _format: Any  # the engine, which has the same methods

    def __init__(self, pool: Pool) -> None:
        self._pool, self._engine, self._format = pool, pool.engine, pool.engine
        self._paths = pool.cache.reader()
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
        paths = await self._paths.paths(
            key, request.n, lambda taken: self._pool.draw(key, request.n - len(taken), request)
        )
        for index, path in enumerate(paths):
            self.spent[key] += path.tokens
            yield Chunk(
                index, path.text, tuple(path.ids), path.tokens, tuple(path.logprobs), path.finish, path.stop_reason,
                prompt_tokens=path.prompt_tokens if index == 0 else 0,
            )  # fmt: skip

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
