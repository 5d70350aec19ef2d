"""Server-sent events of one answer, and work that ends with its client.

The run fills a `Feed`; one writer empties it. Whatever arrived while a chunk was being sent goes out as one chunk, so a
slow reader costs no memory beyond its own text, and a step of the engine costs one write. The 200 is sent with the
first text or after FIRST seconds, so that what is refused at once still gets its own status. When the connection goes,
everything that was started for it is cancelled.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reason_engine.errors import first_error
from reason_engine.runtime.solve import Outcome
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Event
from reason_engine.serving.api.errors import failure
from reason_engine.serving.api.schema import StreamOptions

FIRST = 0.25
GAP = 0.005
"""A stream faster than one chunk in this time has its chunks joined: a write costs more than all else about a token."""
SEND_SECONDS = 30.0
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"
T = TypeVar("T")


class Feed:
    """What a run has produced and nobody has sent yet, by choice."""

    def __init__(self, choices: int, *, exclude: bool = False, events: bool = False) -> None:
        """`exclude`: without reasoning; `events`: with the events of the run."""
        self._pieces: list[list[Piece]] = [[] for _ in range(choices)]
        self._events: list[list[Event]] = [[] for _ in range(choices)]
        self._exclude, self._with_events = exclude, events
        self.ended: list[tuple[int, Outcome]] = []
        self.wake = asyncio.Event()
        self.finished = False
        self.error: BaseException | None = None

    def text_of(self, index: int) -> Callable[[Piece], None]:
        """Takes the pieces of one choice."""
        pieces = self._pieces[index]

        def take(piece: Piece) -> None:
            if self._exclude and piece.field == "reasoning":
                return
            pieces.append(piece)
            self.wake.set()

        return take

    def events_of(self, index: int) -> Callable[[Event], None] | None:
        """Takes the events of one choice; None where the client did not ask for them."""
        if not self._with_events:
            return None
        events = self._events[index]

        def take(event: Event) -> None:
            events.append(event)
            self.wake.set()

        return take

    def end(self, index: int, outcome: Outcome) -> None:
        """A choice has ended."""
        self.ended.append((index, outcome))
        self.wake.set()

    def take(self) -> list[tuple[int, list[Piece], list[Event]]]:
        """Everything that waits, in order within each choice."""
        taken: list[tuple[int, list[Piece], list[Event]]] = []
        for index, (pieces, events) in enumerate(zip(self._pieces, self._events, strict=True)):
            if pieces or events:
                taken.append((index, pieces.copy(), events.copy()))
                pieces.clear()
                events.clear()
        return taken


class Encoder(ABC):
    """Writes the answers of one route, whole or in chunks; `head` is what every chunk begins with."""

    first = b""
    """Opens a stream."""

    def __init__(self, head: dict[str, Any], options: StreamOptions | None) -> None:
        self.head = head
        self._with_usage = bool(options and options.include_usage)

    @abstractmethod
    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The unstreamed answer."""

    @abstractmethod
    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes:
        """What one choice gained."""

    @abstractmethod
    def last(self, index: int, outcome: Outcome) -> bytes:
        """The final chunk of one choice."""

    @abstractmethod
    def usage(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """What all choices cost."""

    def closing(self, outcomes: Sequence[Outcome]) -> bytes:
        """What follows the choices: the usage, where it was asked for."""
        return self.chunk([], usage=self.usage(outcomes)) if self._with_usage else b""

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        """Any chunk."""
        return f"data: {json.dumps({**self.head, 'choices': choices, **more})}\n\n".encode()


class EventStream(Response):
    """A streamed answer. `work` runs the request and fills the feed."""

    media_type = "text/event-stream"

    def __init__(
        self, feed: Feed, encoder: Encoder, work: Callable[[], Awaitable[Sequence[Outcome]]], keepalive: float
    ) -> None:
        super().__init__()
        self._feed, self._encoder, self._work, self._keepalive = feed, encoder, work, keepalive
        self._outcomes: Sequence[Outcome] = ()
        self._silent = False
        self._sending: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with _watched(receive) as group:
                helpers = [group.create_task(task) for task in (self._run(), self._beat())]
                await self._write(send)
                for helper in helpers:
                    helper.cancel()
        except (ClientGone, OSError):
            pass

    async def _run(self) -> None:
        feed = self._feed
        try:
            self._outcomes = await self._work()
        except Exception as error:  # the boundary to the client: it becomes an error object
            feed.error = first_error(error)
        feed.finished = True
        feed.wake.set()

    async def _beat(self) -> None:
        """Wakes the writer after a silence, and gives up on a reader who takes nothing."""
        clock = asyncio.get_running_loop().time
        while True:
            self._silent = True
            await asyncio.sleep(self._keepalive)
            if self._sending is not None and clock() - self._sending > SEND_SECONDS:
                raise ClientGone
            if self._silent:
                self._feed.wake.set()

    async def _write(self, send: Send) -> None:
        feed, encoder, clock = self._feed, self._encoder, asyncio.get_running_loop().time
        written = 0.0

        async def put(body: bytes, more: bool = True) -> None:
            nonlocal written
            self._sending = written = clock()
            self._silent = False
            await send({"type": "http.response.body", "body": body, "more_body": more})
            self._sending = None

        try:
            async with asyncio.timeout(FIRST):
                await feed.wake.wait()
        except TimeoutError:
            pass
        if feed.error and not feed.ended:
            raise feed.error  # nothing was sent, so it gets a status of its own
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await put(encoder.first)
        while True:
            taken, ended, feed.ended = feed.take(), feed.ended, []
            body = b"".join(encoder.delta(*item) for item in taken)
            body += b"".join(encoder.last(index, outcome) for index, outcome in ended)
            if body:
                await put(body)
                continue
            if feed.finished:
                break
            feed.wake.clear()
            await feed.wake.wait()
            if self._silent:
                await put(b": keep-alive\n\n")
            elif not feed.finished and (early := GAP - (clock() - written)) > 0:
                await asyncio.sleep(early)
        if feed.error:
            end = f"data: {json.dumps(failure(feed.error).body)}\n\n".encode()
        else:
            end = encoder.closing(self._outcomes)
        await put(end + DONE, more=False)


class ClientGone(Exception):
    """The client closed the connection before its answer was ready."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientGone, with the work cancelled and cleaned up, when the client leaves."""
    async with _watched(receive):
        return await work


@asynccontextmanager
async def _watched(receive: Receive) -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group that ends with the client. Raises ClientGone, or its first error ungrouped."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientGone

    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch())
            yield group
            watcher.cancel()
    except BaseExceptionGroup as error:
        raise first_error(error) from None
