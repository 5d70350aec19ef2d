"""What engines draw, while it grows and once it is there: the samples of a stream, and paths kept for later readers."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from reason_engine.types import Chunk, FinishReason, TokenLogprob, Usage


@dataclass(slots=True)
class PartialPath:
    """Sample `index` of a request while it grows. `finish` is None until its last chunk has come."""

    index: int = 0
    parts: list[str] = field(default_factory=list[str])
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    tokens: int = 0
    """Tokens generated for it, also on engines that report no ids."""
    prompt_tokens: int = 0
    """Of the request's prompt, on sample 0 alone, as `cached_tokens`."""
    cached_tokens: int = 0
    draft_accepted: int = 0
    draft_rejected: int = 0
    finish: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.parts)

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return Usage(self.prompt_tokens, self.cached_tokens, self.tokens, self.draft_accepted, self.draft_rejected)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk of this sample in."""
        self.tokens += chunk.token_count
        self.ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        if chunk.text:
            self.parts.append(chunk.text)
        if chunk.finish_reason:
            self.finish, self.stop_reason = chunk.finish_reason, chunk.stop_reason
        self.prompt_tokens += chunk.prompt_tokens
        self.cached_tokens += chunk.cached_tokens
        self.draft_accepted += chunk.draft_accepted
        self.draft_rejected += chunk.draft_rejected


async def collect(stream: AsyncIterator[Chunk]) -> list[PartialPath]:
    """The samples of a whole stream of `Engine.generate`, by index."""
    found: dict[int, PartialPath] = {}
    async for chunk in stream:
        if chunk.index not in found:
            found[chunk.index] = PartialPath(chunk.index)
        found[chunk.index].add(chunk)
    return [found[index] for index in sorted(found)]


Drawn = TypeVar("Drawn")


@dataclass
class PathCache(Generic[Drawn]):
    """Paths that were drawn already, by their kind (the prompt and how it was sampled), in the order of drawing.

    Several readers share the paths; each reads every kind from its first path on and gets no path twice. Draws of one
    kind wait for each other, so that none is drawn twice.
    """

    kept: defaultdict[str, list[Drawn]] = field(default_factory=lambda: defaultdict(list))
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _read: Counter[str] = field(default_factory=Counter[str])

    def reader(self) -> PathCache[Drawn]:
        """The same paths for somebody who has read none of them."""
        return PathCache(self.kept, self._locks)

    def take(self, kind: str, n: int) -> list[Drawn]:
        """Up to n kept paths that this reader has not had yet."""
        begin = self._read[kind]
        taken = self.kept[kind][begin : begin + n]
        self._read[kind] += len(taken)
        return taken

    def put(self, kind: str, paths: Sequence[Drawn]) -> None:
        """Keep what this reader has just drawn and had."""
        self.kept[kind].extend(paths)
        self._read[kind] = len(self.kept[kind])

    async def paths(self, kind: str, n: int, draw: Callable[[list[Drawn]], Awaitable[list[Drawn]]]) -> list[Drawn]:
        """N paths that this reader has not had; those that are not kept yet are drawn by `draw`, which is given those
        that are and may return fewer."""
        async with self._locks[kind]:
            taken = self.take(kind, n)
            if len(taken) == n:
                return taken
            new = await draw(taken)
            self.put(kind, new)
        return [*taken, *new]
