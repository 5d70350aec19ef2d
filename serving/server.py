"""Runs the application with uvicorn: one process, a graceful end, and an exit that tells a dead engine from a stop.

At the first SIGTERM or SIGINT new work gets 503 while running requests finish, for at most `drain_seconds`; a second
signal ends at once. A stop on request returns; an engine that could not start or died raises, so that a supervisor sees
a failure.
"""

from __future__ import annotations

import asyncio
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI

from reason_engine.errors import EngineDead, ReasonError
from reason_engine.serving.service import Service

WATCH_SECONDS = 2.0
DEAD_CHECKS = 3


class Server(uvicorn.Server):
    """A uvicorn server that drains before it closes its sockets."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve_until_stopped(self) -> None:
        """Serve. Raises the error that ended the engine."""
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        try:
            await self.serve()
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        if failure := self._service.gate.failure:
            raise failure if isinstance(failure, ReasonError) else EngineDead(str(failure)) from failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: now."""
        if self._drain is None and self._loop is not None and sig in (signal.SIGTERM, signal.SIGINT):
            self._loop.call_soon_threadsafe(self._begin_drain)
        else:
            self.should_exit = self.force_exit = True

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._service.gate.draining = True
            self._drain = asyncio.create_task(self._finish())

    async def _finish(self) -> None:
        try:
            async with asyncio.timeout(self._service.settings.drain_seconds):
                await self._service.gate.idle()
        except TimeoutError:
            self._service.gate.end()
        self.should_exit = True

    async def _watch(self) -> None:
        """Stop serving once the engine cannot come back."""
        gate, missed = self._service.gate, 0
        while True:
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    await gate.failed.wait()
                break
            except TimeoutError:
                pass
            if gate.loading:
                continue
            health = await self._service.health()
            missed = 0 if health.live else missed + 1
            if missed >= DEAD_CHECKS:
                gate.fail(EngineDead(health.detail or "the engine has stopped"))
                break
        self.should_exit = True


def server_for(app: FastAPI, host: str, port: int, *, log_level: str = "warning") -> Server:
    """A server of this application, not yet running."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    return Server(config, app.state.service)
