"""One open request as the front sees it: pieces arrive, and are joined per sample while nobody reads."""

from __future__ import annotations

import asyncio

from reason_engine.engines.embedded.messages import Delta
from reason_engine.types import Chunk


class Stream:
    """Open until each of its `n` samples has had its last piece, or it failed."""

    def __init__(self, n: int) -> None:
        self.left = n
        self._held: dict[int, list[Delta]] = {}
        self._news = asyncio.Event()
        self._error: Exception | None = None

    def put(self, delta: Delta) -> None:
        self._held.setdefault(delta[1], []).append(delta)
        if delta[5] is not None:
            self.left -= 1
        self._news.set()

    def fail(self, error: Exception) -> None:
        self._error, self.left = error, 0
        self._news.set()

    async def take(self) -> list[Chunk]:
        """The chunks that have come, at least one. Raises the error that ended the stream, after what came before."""
        await self._news.wait()
        self._news.clear()
        held, self._held = self._held, {}
        if not held and self._error is not None:
            raise self._error
        if self._error is not None:
            self._news.set()
        return [_chunk(deltas) for deltas in held.values()]

    @property
    def over(self) -> bool:
        """Nothing is left to take."""
        return self.left == 0 and not self._held and self._error is None


def _chunk(deltas: list[Delta]) -> Chunk:
    if len(deltas) == 1:
        _, index, text, ids, logprobs, finish, reason, prompt, cached, accepted, rejected = deltas[0]
        return Chunk(index, text, ids, len(ids), logprobs, finish, reason, prompt, cached, accepted, rejected)
    ids = tuple(i for d in deltas for i in d[3])
    last = deltas[-1]
    return Chunk(
        last[1],
        "".join(d[2] for d in deltas),
        ids,
        len(ids),
        tuple(p for d in deltas for p in d[4]),
        last[5],
        last[6],
        sum(d[7] for d in deltas),
        sum(d[8] for d in deltas),
        sum(d[9] for d in deltas),
        sum(d[10] for d in deltas),
    )
