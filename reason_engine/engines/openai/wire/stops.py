"""Stop strings that stay in the text, for endpoints that leave them out: the samples end here instead of there.

The endpoint is not told of them. What it writes after one is counted and not shown; a sample's last chunk waits for the
endpoint's own, so that its tokens are all in. Worth it for the few tokens of a forced answer only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from reason_engine.engines.text import StopFinder
from reason_engine.types import Chunk


async def ended_at(chunks: AsyncIterator[Chunk], stops: tuple[str, ...]) -> AsyncIterator[Chunk]:
    """The chunks of all samples, each up to the first of these strings, which ends its text."""
    finders: dict[int, StopFinder] = {}
    met: dict[int, str] = {}
    async for chunk in chunks:
        index = chunk.index
        if index in met:
            chunk = replace(chunk, text="", logprobs=())
        else:
            finder = finders.setdefault(index, StopFinder(stops, include=True))
            shown, stop = finder.feed(chunk.text)
            if stop is not None:
                met[index] = stop
            elif chunk.finish_reason:
                shown += finder.finish()
            chunk = replace(chunk, text=shown)
        if index in met and chunk.finish_reason in ("stop", "length"):
            chunk = replace(chunk, finish_reason="stop", stop_reason=met[index])
        yield chunk
