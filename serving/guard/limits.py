"""What bounds requests: admission by engine sequences, and the operator's caps on a request's budget and width.

The unit of capacity is a sequence in the engine, not an HTTP request: a vote of 16 takes 16. A request is counted the
moment it is let in and before anything is tokenised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from reason_engine.serving.api.errors import RETRY_BUSY, RETRY_DOWN, Refused, invalid
from reason_engine.serving.api.schema import Budget as BudgetRequest
from reason_engine.settings import Settings
from reason_engine.strategies import Strategy
from reason_engine.types import Limits


class AdmissionGate:
    """Lets requests in while the engine is up and has room. One a server; used from its event loop only."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self.requests = 0
        self.loading = False
        self.draining = False
        self.failure: BaseException | None = None
        """Why the engine will not come back, once that is known."""
        self.failed = asyncio.Event()
        self._idle = asyncio.Event()
        self._over = asyncio.Event()
        self._idle.set()

    @property
    def dead(self) -> str | None:
        """The failure in words."""
        return None if self.failure is None else str(self.failure) or type(self.failure).__name__

    def fail(self, error: BaseException) -> None:
        """From now on everything is refused."""
        self.failure = error
        self.failed.set()

    @property
    def open(self) -> bool:
        """Whether new work is taken at all."""
        return not (self.loading or self.draining or self.dead)

    @contextmanager
    def hold(self, sequences: int) -> Generator[None]:
        """Take room for a request's sequences. Raises Refused: 503 while down, 429 without room."""
        self.check()
        # A request wider than the whole capacity runs alone rather than never.
        if self.held and self.held + sequences > self.capacity:
            raise Refused(
                429,
                f"this server is full: {self.held} of {self.capacity} sequences are running and this request needs "
                f"{sequences}",
                "queue_full",
                retry_after=RETRY_BUSY,
            )
        self.held += sequences
        self.requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.held -= sequences
            self.requests -= 1
            if not self.requests:
                self._idle.set()

    def check(self) -> None:
        """Raises Refused (503) while the server takes no work."""
        if self.dead:
            raise Refused(503, f"the engine has stopped: {self.dead}", "engine_dead", retry_after=RETRY_DOWN)
        if self.draining:
            raise Refused(503, "this server is shutting down", "draining", retry_after=RETRY_DOWN)
        if self.loading:
            raise Refused(503, "the model is still loading", "loading", retry_after=RETRY_DOWN)

    def end(self) -> None:
        """The time to finish is over: what still runs is refused."""
        self._over.set()

    async def over(self) -> NoReturn:
        """Raises Refused (503) once the time to finish is over."""
        await self._over.wait()
        raise Refused(503, "this server is shutting down", "draining", retry_after=RETRY_DOWN)

    async def idle(self) -> None:
        """Wait until no request is running."""
        await self._idle.wait()


def check_width(n: int, strategy: Strategy, settings: Settings) -> int:
    """The sequences that a request needs: n times the strategy's width. Raises RequestError over the operator's cap."""
    if n > settings.max_n:
        raise invalid(
            "n", f"allowed: >= 1 and <= {settings.max_n}; got {n}; the nearest valid value is {settings.max_n}"
        )
    one = strategy.width
    if n * one > settings.max_width:
        option = "n" if "n" in type(strategy).model_fields else "k"
        fitting = f"; the nearest valid value is {max(1, settings.max_width // one)}" if n > 1 else ""
        raise invalid(
            "n" if n > 1 else f"reasoning.{option}",
            f"{n} x {one} paths at once; this server allows {settings.max_width} for one request{fitting}",
        )
    return n * one


def limits_of(budget: BudgetRequest | None, settings: Settings) -> Limits:
    """The request's budget under the operator's caps. Raises RequestError (400) for a value above its cap."""
    given = budget or BudgetRequest()
    return Limits(
        int(_capped("tokens", given.tokens, settings.max_tokens)),
        _capped("seconds", given.seconds, settings.max_seconds),
        int(_capped("samples", given.samples, settings.max_samples)),
    )


def _capped(name: str, given: float | None, cap: float) -> float:
    if given is not None and given > cap:
        raise invalid(f"budget.{name}", f"allowed: <= {cap:g}; got {given:g}; the nearest valid value is {cap:g}")
    return cap if given is None else given
