"""How many threads a pass takes: whichever count was the quickest when both were timed, on this machine as it is now.

Threads that wait for one another are worth their cores on an idle machine and lose most of their time on a busy one.
So other counts are tried between times, by real passes of which no work is lost. A trial takes place once its expected
loss is covered by SHARE of the time that passes have taken since. Passes of alike many tokens (up to a power of two)
share a choice; one that was never timed begins with its neighbour's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SHARE, PASSES = 0.01, 3
"""Of the time that trials may cost; passes of a trial, the quickest of which counts."""
LEAST_LOSS, GUESS, GAIN = 0.3, 1.0, 0.97
"""Loss of a pass that a trial is charged with at least, in passes, and that of a count which was never tried; a count
takes over at this share of the other's time."""


@dataclass(slots=True)
class _Kind:
    """Passes of alike many tokens: the count they take, its last times, and what of its time others took."""

    count: int
    shares: dict[int, float]
    recent: list[float] = field(default_factory=list[float])
    trial: int | None = None
    """The count that is being tried, and the times so far."""
    trial_times: list[float] = field(default_factory=list[float])
    number: int = 0


class ThreadChoice:
    """Chooses among `counts`. Call `begin` before a pass and `end` after it."""

    def __init__(
        self, counts: Sequence[int], apply: Callable[[int], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.counts, self.current, self._apply, self._clock = tuple(counts), counts[0], apply, clock
        self._kinds: dict[int, _Kind] = {}
        self._credit = 0.0
        self._kind = _Kind(self.current, {})
        self._start = 0.0

    def settle(self, run: Callable[[], object], tokens: int = 1) -> None:
        """Time a pass with every count, before there is anything to do."""
        times: dict[int, float] = {}
        for count in self.counts:
            self._use(count)
            run()
            taken: list[float] = []
            for _ in range(PASSES):
                start = self._clock()
                run()
                taken.append(self._clock() - start)
                if times and taken[-1] > 2 * min(times.values()):
                    break
            times[count] = min(taken)
        best = min(times, key=lambda count: times[count])
        self._kinds[_size(tokens)] = _Kind(best, {count: value / times[best] for count, value in times.items()})
        self._use(best)

    def begin(self, tokens: int) -> None:
        """A pass of so many tokens begins."""
        size = _size(tokens)
        kind = self._kinds.get(size)
        if kind is None:
            near = min(self._kinds, key=lambda known: abs(known - size), default=None)
            like = _Kind(self.current, {}) if near is None else self._kinds[near]
            kind = self._kinds[size] = _Kind(like.count, dict(like.shares))
        self._kind = kind
        if kind.trial is None and len(kind.recent) == PASSES:
            self._consider(kind)
        self._use(kind.count if kind.trial is None else kind.trial)
        self._start = self._clock()

    def end(self) -> None:
        """It has ended."""
        seconds, kind = self._clock() - self._start, self._kind
        self._credit += SHARE * seconds
        if kind.trial is None:
            kind.recent = [*kind.recent[1 - PASSES :], seconds]
            return
        usual = min(kind.recent)
        self._credit -= max(0.0, seconds - usual)
        kind.trial_times.append(seconds)
        if len(kind.trial_times) < PASSES and seconds < 3 * usual:
            return
        share = min(kind.trial_times) / usual
        kind.shares[kind.trial] = share
        if share < GAIN:
            kind.shares = {count: value / share for count, value in kind.shares.items()} | {kind.count: 1 / share}
            kind.count = kind.trial
            kind.recent = kind.trial_times[-PASSES:]
        kind.trial, kind.trial_times = None, []

    def _consider(self, kind: _Kind) -> None:
        """Try the next count where that is paid for."""
        others = [count for count in self.counts if count != kind.count]
        other = others[kind.number % len(others)]
        loss = max(kind.shares.get(other, 1 + GUESS) - 1, LEAST_LOSS)
        cost = PASSES * loss * min(kind.recent)
        if self._credit >= cost:
            self._credit = cost  # what long passes have put by is no reason to try short ones again and again
            kind.number += 1
            kind.trial = other

    def _use(self, count: int) -> None:
        if count != self.current:
            self._apply(count)
            self.current = count


def _size(tokens: int) -> int:
    """Its power of two, rounded up."""
    return max(0, tokens - 1).bit_length()


def counts_for(cores: int) -> tuple[int, ...]:
    """What is tried on so many cores: one, all, and half of them where two threads may share a core."""
    return tuple(sorted({1, cores // 2 if cores >= 4 else 1, cores}))
