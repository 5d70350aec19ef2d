"""How the front reaches its worker: a thread of this process, or a process of its own. Never loads torch."""

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

from reason_engine.engines.embedded.messages import FromWorker, Inbox, Stop, ToWorker, WorkerConfig, frame

KEPT = {f"MALLOC_{what}_THRESHOLD_": str(2**28) for what in ("MMAP", "TRIM")}
"""Of freed memory glibc keeps as much for what is asked for next. Logits of 64 rows are 40 MB a step: got from the
system anew, and its pages one by one, they took a third of a step's time."""

Receive = Callable[[FromWorker | None], None]
"""Called in the front's event loop; None once the worker has ended."""


class Transport(Protocol):
    async def open(self, config: WorkerConfig, receive: Receive) -> None: ...
    def send(self, message: ToWorker) -> None: ...
    async def close(self) -> None: ...


class ThreadTransport:
    """The worker in a daemon thread."""

    def __init__(self) -> None:
        self._inbox: Inbox = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self, config: WorkerConfig, receive: Receive) -> None:
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


class ProcessTransport:
    """The worker in a child process that ends with this one."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def open(self, config: WorkerConfig, receive: Receive) -> None:
        home = str(Path(__file__).resolve().parents[3])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"GOMP_SPINCOUNT": "10000", **KEPT, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = (sys.executable, "-m", "reason_engine.engines.embedded.worker")
        self._process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
        self.send(config)
        self._reader = asyncio.create_task(self._read(self._process, receive))

    def send(self, message: ToWorker | WorkerConfig) -> None:
        stream = self._process.stdin if self._process else None
        if stream is not None and not stream.is_closing():
            stream.write(frame(message))

    async def close(self) -> None:
        if self._process is None:
            return
        self.send(Stop())
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self, process: Process, receive: Receive) -> None:
        assert process.stdout is not None
        try:
            while True:
                size = struct.unpack("<I", await process.stdout.readexactly(4))[0]
                receive(pickle.loads(await process.stdout.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            receive(None)
