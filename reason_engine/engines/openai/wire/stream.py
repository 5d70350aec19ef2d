"""The chunks of one request to an endpoint, on their way from the task that reads the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from reason_engine.types import Chunk


class ChunkStream:
    """The chunks of one request passed from the task that makes them to their reader."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.task: asyncio.Task[None]
        self._items: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

    def put(self, item: Chunk | Exception) -> None:
        """An error ends the stream."""
        self._items.put_nowait(item)

    def abort(self) -> None:
        """Close the connection, and end what is open with `abort`."""
        self.task.cancel()
        self._items.put_nowait(None)

    async def chunks(self) -> AsyncIterator[Chunk]:
        unfinished = set(range(self.width))
        while unfinished:
            item = await self._items.get()
            if item is None:
                for index in sorted(unfinished):
                    yield Chunk(index, finish_reason="abort")
                return
            if isinstance(item, Exception):
                raise item
            if item.finish_reason:
                unfinished.discard(item.index)
            yield item
