"""Server-sent events of one answer: role chunk, reasoning deltas, content deltas, finish chunk, usage, `[DONE]`.

The run fills a `Feed`; one writer empties it. Whatever arrived while a chunk was being sent goes out as one chunk, so a
slow reader costs no memory beyond its own text, and a step of the engine costs one write. The 200 is sent with the
first text or after FIRST seconds, so that what is refused at once still gets its own status.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from reason_engine.errors import first_error
from reason_engine.runtime.events import Event, to_json
from reason_engine.runtime.stream_text import Piece
from reason_engine.serving.api.errors import failure
from reason_engine.serving.streaming.connection import ClientGone, gone

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
_quote = json.encoder.encode_basestring


R = TypeVar("R")


class Feed(Generic[R]):
    """What a run has said and nobody has sent yet, by choice; `R` is what a choice ends with."""

    def __init__(self, choices: int, *, exclude: bool, events: bool) -> None:
        self._pieces: list[list[Piece]] = [[] for _ in range(choices)]
        self._events: list[list[Event]] = [[] for _ in range(choices)]
        self._exclude, self._with_events = exclude, events
        self.ended: list[tuple[int, R]] = []
        self.wake = asyncio.Event()
        self.finished = False
        self.error: BaseException | None = None

    def say(self, index: int) -> Callable[[Piece], None]:
        """Takes the pieces of one choice."""
        pieces = self._pieces[index]

        def take(piece: Piece) -> None:
            if self._exclude and piece.field == "reasoning":
                return
            pieces.append(piece)
            self.wake.set()

        return take

    def publish(self, index: int) -> Callable[[Event], None] | None:
        """Takes the events of one choice; None where the client did not ask for them."""
        if not self._with_events:
            return None
        events = self._events[index]

        def take(event: Event) -> None:
            events.append(event)
            self.wake.set()

        return take

    def end(self, index: int, outcome: R) -> None:
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


class Chunks:
    """Encodes chunks of one response; what does not change is encoded once."""

    def __init__(self, head: dict[str, Any], choices: int) -> None:
        self._head = head
        plain = json.dumps(head)[:-1]
        self._starts = [f'data: {plain}, "choices": [{{"index": {i}, "delta": {{' for i in range(choices)]
        self.first = self.chunk(
            [
                {"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                for i in range(choices)
            ]
        )

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        """Any chunk."""
        return f"data: {json.dumps({**self._head, 'choices': choices, **more})}\n\n".encode()

    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes:
        """What one choice gained: neighbouring pieces of a field joined, one chunk a field."""
        runs: list[tuple[str, list[str]]] = []
        for piece in pieces:
            if runs and runs[-1][0] == piece.field:
                runs[-1][1].append(piece.text)
            else:
                runs.append((piece.field, [piece.text]))
        start, out = self._starts[index], [self._happened(index, events)] if events else []
        for field, texts in runs:
            text = _quote("".join(texts))
            body = (
                f'"content": {text}'
                if field == "content"
                else f'"reasoning": {text}, "reasoning_content": {text}'
            )
            out.append(f'{start}{body}}}, "finish_reason": null}}]}}\n\n')
        return "".join(out).encode("utf-8", "replace")

    def _happened(self, index: int, events: Sequence[Event]) -> str:
        body = json.dumps({"index": index, "events": [to_json(event) for event in events]})
        return f'{self._starts[index]}}}, "finish_reason": null}}], "reason": {body}}}\n\n'


class TextChunks:
    """Encodes the chunks of a plain completion, which has neither roles nor reasoning."""

    first = b""

    def __init__(self, head: dict[str, Any]) -> None:
        self._head = head

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps({**self._head, 'choices': choices, **more})}\n\n".encode()

    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes:
        text = "".join(piece.text for piece in pieces)
        return self.chunk([{"index": index, "text": text, "logprobs": None, "finish_reason": None}])


class Encoder(Protocol):
    """Turns what a choice gained into chunks; `first` opens the stream."""

    @property
    def first(self) -> bytes: ...
    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes: ...


class EventStream(Response, Generic[R]):
    """A streamed answer. `work` runs the request and fills the feed; `last` makes a choice's final chunks from its
    outcome, `closing` what follows all of them (usage)."""

    media_type = "text/event-stream"

    def __init__(
        self,
        feed: Feed[R],
        chunks: Encoder,
        work: Callable[[], Awaitable[Sequence[R]]],
        last: Callable[[int, R], bytes],
        closing: Callable[[Sequence[R]], bytes],
        keepalive: float,
    ) -> None:
        super().__init__()
        self._feed, self._chunks, self._work = feed, chunks, work
        self._last, self._closing, self._keepalive = last, closing, keepalive
        self._outcomes: Sequence[R] = ()
        self._silent = False
        self._sending: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watch() -> None:
            await gone(receive)
            raise ClientGone

        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(task) for task in (self._run(), watch(), self._beat())]
                await self._write(send)
                for helper in helpers:
                    helper.cancel()
        except BaseExceptionGroup as error:
            cause = first_error(error)
            if not isinstance(cause, ClientGone | OSError):
                raise cause from None

    async def _run(self) -> None:
        feed = self._feed
        try:
            self._outcomes = await self._work()
        except Exception as error:  # the boundary to the client: it becomes an error object
            feed.error = first_error(error)
        feed.finished = True
        feed.wake.set()

    async def _beat(self) -> None:
        """Speaks up after a silence, and gives up on a reader who takes nothing."""
        clock = asyncio.get_running_loop().time
        while True:
            self._silent = True
            await asyncio.sleep(self._keepalive)
            if self._sending is not None and clock() - self._sending > SEND_SECONDS:
                raise ClientGone
            if self._silent:
                self._feed.wake.set()

    async def _write(self, send: Send) -> None:
        feed, clock = self._feed, asyncio.get_running_loop().time

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
        await put(self._chunks.first)
        while True:
            taken, ended, feed.ended = feed.take(), feed.ended, []
            body = b"".join(self._chunks.delta(*item) for item in taken)
            body += b"".join(self._last(index, outcome) for index, outcome in ended)
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
            tail = f"data: {json.dumps(failure(feed.error).body)}\n\n".encode()
        else:
            tail = self._closing(self._outcomes)
        await put(tail + DONE, more=False)
