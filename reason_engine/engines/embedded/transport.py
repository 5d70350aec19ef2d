"""How the front reaches its worker: a thread of this process, or a process of its own.

One open request as the front sees it: pieces arrive, and are joined per sample while nobody reads.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from reason_engine.engines.embedded.messages import Config, Delta, FromWorker, Stop, ToWorker
from reason_engine.types import Chunk

Receive = Callable[[FromWorker | None], None]
"""Called in the front's event loop; None once the worker has ended."""


class Link(Protocol):
    async def open(self, config: Config, receive: Receive) -> None: ...
    def send(self, message: ToWorker) -> None: ...
    async def close(self) -> None: ...


class ThreadLink:
    """The worker in a daemon thread."""

    def __init__(self) -> None:
        self._inbox: SimpleQueue[ToWorker | Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self, config: Config, receive: Receive) -> None:
        from reason_engine.engines.embedded.worker import Worker

        loop = asyncio.get_running_loop()

        def post(message: FromWorker | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(receive, message)

        def work() -> None:
            Worker(config, self._inbox, post).run()
            post(None)

        self._thread = threading.Thread(target=work, daemon=True, name="embedded-engine")
        self._thread.start()

    def send(self, message: ToWorker) -> None:
        self._inbox.put(message)

    async def close(self) -> None:
        self._inbox.put(Stop())
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)


class ProcessLink:
    """The worker in a child process that ends with this one."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def open(self, config: Config, receive: Receive) -> None:
        home = str(Path(__file__).resolve().parents[3])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "reason_engine.engines.embedded.worker",
            stdin=PIPE,
            stdout=PIPE,
            env={"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._write(config)
        self._reader = asyncio.create_task(self._read(self._process, receive))

    def send(self, message: ToWorker) -> None:
        self._write(message)

    async def close(self) -> None:
        if self._process is None:
            return
        self._write(Stop())
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    def _write(self, message: object) -> None:
        stream = self._process.stdin if self._process else None
        if stream is None or stream.is_closing():
            return
        data = pickle.dumps(message, protocol=5)
        stream.write(struct.pack("<I", len(data)) + data)

    async def _read(self, process: Process, receive: Receive) -> None:
        assert process.stdout is not None
        try:
            while True:
                size = struct.unpack("<I", await process.stdout.readexactly(4))[0]
                receive(pickle.loads(await process.stdout.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            receive(None)


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
