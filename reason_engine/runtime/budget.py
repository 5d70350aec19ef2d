"""The hard budget of one call of `solve`: tokens by lease, seconds by deadline, samples by admission.

A path decodes only tokens that were leased to it before decoding. With `free = cap - spent - held`, a draw of n paths
of at most m tokens each gets n * m when that is free, else leases of the expected length (a running mean of finished
paths, half as much again), else an even share of what is free. A path that used its lease up asks for another one and
waits while others still hold theirs; unused parts come back when a path ends. So `spent + held <= cap` always, under
any concurrency, and `spent` equals what the engine generated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from reason_engine.errors import BudgetExhausted
from reason_engine.types import Limits, Stopped

Result = TypeVar("Result")

FIRST_LEASE = 256
SMALLEST_LEASE = 16


@dataclass(frozen=True, slots=True)
class Lease:
    """`paths` may each decode up to `tokens` tokens."""

    paths: int
    tokens: int


@dataclass
class Pool:
    """What budgets that share one cap have in common."""

    spent: int = 0
    held: int = 0
    kept: int = 0
    """Of those held, what paths that wait keep for their answers: it does not come back before they go on."""
    samples: int = 0
    finished_paths: int = 0
    finished_tokens: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])


class Budget:
    """Accounts for one run. All methods run on one event loop; `settle` never blocks.

    `share()` gives another run a budget over the same pool: `n` choices of one request never pass its cap together.
    """

    def __init__(self, limits: Limits, pool: Pool | None = None, started: float | None = None) -> None:
        self.limits = limits
        self.started = time.monotonic() if started is None else started
        self.deadline = self.started + limits.seconds if limits.seconds is not None else None
        self.cut: Stopped | None = None
        """Why something of this run was refused or cut, once it was; the first reason stays."""
        self._pool = pool or Pool()
        self._bound: int | None = None
        self._spent = self._held = 0

    def share(self) -> Budget:
        """A budget for another run under the same cap and clock."""
        return Budget(self.limits, self._pool, self.started)

    @property
    def spent(self) -> int:
        """Tokens generated so far."""
        return self._pool.spent

    @property
    def own(self) -> int:
        """Tokens that this run generated, whatever shares its cap."""
        return self._spent

    @property
    def samples(self) -> int:
        """Sequences begun so far."""
        return self._pool.samples

    @property
    def free(self) -> int | None:
        """Tokens neither spent nor leased; None where there is no cap."""
        left = None if self.limits.tokens is None else self.limits.tokens - self._pool.spent - self._pool.held
        if self._bound is None:
            return left
        own = max(0, self._bound - self._spent - self._held)
        return own if left is None else min(left, own)

    def bound(self, tokens: int) -> None:
        """From now on this run by itself may not pass `tokens` in all, what it has spent included."""
        self._bound = tokens

    @property
    def seconds(self) -> float:
        """Seconds since the request began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, negative after it; None where there is none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    async def in_time(self, work: Awaitable[Result]) -> Result:
        """What this gives; it is ended at the deadline. Raises BudgetExhausted then."""
        left = self.seconds_left
        limit = asyncio.timeout(None if left is None else max(0.0, left))
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.exhausted("budget-seconds") from None

    def admit(self, n: int) -> int:
        """Count up to n new samples; fewer when the cap is near. Raises BudgetExhausted when none is left."""
        if self.overdue:
            raise self.exhausted("budget-seconds")
        cap = self.limits.samples
        granted = n if cap is None else min(n, cap - self._pool.samples)
        if granted < n:
            self.note("budget-samples")
        if granted <= 0:
            raise BudgetExhausted("budget-samples")
        self._pool.samples += granted
        return granted

    def give_back(self, samples: int) -> None:
        """Samples that were admitted and never begun."""
        self._pool.samples -= samples

    async def lease(self, paths: int, tokens: int, *, kept: int = 0) -> Lease:
        """Set tokens aside for up to `paths` paths of at most `tokens` each; waits while others hold what is left.
        `kept`: tokens that who asks holds already.

        Raises BudgetExhausted when nothing is left and nothing will come back.
        """
        while True:
            if self.overdue:
                raise self.exhausted("budget-seconds")
            free = self.free
            if free is None or free > 0:
                lease = self._share(paths, tokens, free)
                self._pool.held += lease.paths * lease.tokens
                self._held += lease.paths * lease.tokens
                return lease
            used_up = self._bound is not None and self._spent >= self._bound
            if used_up or self._pool.held <= self._pool.kept + kept:
                raise self.exhausted("budget-tokens")
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pool.waiters.append(change)
            self._pool.kept += kept
            try:
                await change
            finally:
                self._pool.kept -= kept

    def settle(self, leased: int, used: int, *, finished: bool = False) -> None:
        """Give back a lease of `leased` tokens of which `used` were generated."""
        self._pool.held -= leased
        self._pool.spent += used
        self._held -= leased
        self._spent += used
        if finished:
            self._pool.finished_paths += 1
            self._pool.finished_tokens += used
        waiters, self._pool.waiters = self._pool.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def note(self, reason: Stopped) -> None:
        """Remember why something was cut; the first reason wins."""
        self.cut = self.cut or reason

    def exhausted(self, reason: Stopped) -> BudgetExhausted:
        """The error to raise for this reason, which is noted as well."""
        self.note(reason)
        return BudgetExhausted(reason)

    def expected(self) -> int:
        """Expected length of a path in tokens, half as much again as the mean of those that finished."""
        if not self._pool.finished_paths:
            return FIRST_LEASE
        return max(SMALLEST_LEASE, -(-3 * self._pool.finished_tokens // (2 * self._pool.finished_paths)))

    def _share(self, paths: int, tokens: int, free: int | None) -> Lease:
        if free is None or paths * tokens <= free:
            return Lease(paths, tokens)
        size = min(tokens, self.expected())
        if paths * size <= free:
            return Lease(paths, size)
        least = min(tokens, SMALLEST_LEASE)
        fewer = max(1, min(paths, free // least))
        return Lease(fewer, max(1, min(tokens, free // fewer)))
