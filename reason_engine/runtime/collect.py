"""Joins the chunks of a stream: what one sample has become so far, and all samples of one request at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

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
