"""What a step costs, learnt while serving: whether drafts pay is a question of this machine, this model and this batch.

    plain(B)          seconds of a step that gives B rows one token each
    checked(B, X)     plain(B) + fixed + extra * X: the same with X drafted tokens to be checked

Each plain(B) is a running mean that takes no single measurement at more than double or less than half. `fixed` and
`extra` are a least-squares line through decayed sums of the excess of checked steps, an excess counting no more than
half a step and a row's share of a step for each drafted token: one more token costs no more than those that are there.
"""

from __future__ import annotations

import time

import torch

RATE = 0.1
KEPT, RELAXED = 0.98, 0.9
FIXED, SPARE = 0.1, 15
"""The line to begin with: a tenth of a plain step, and a token's share if the batch had so many more rows."""
SEEN = (0.0, 8.0)
"""The two places where the first line counts as one measurement each."""


def now(device: torch.device) -> float:
    """A clock for steps: on the CPU this thread's own time, which other processes do not pass."""
    return time.thread_time() if device.type == "cpu" else time.perf_counter()


class Pace:
    """Knows nothing until a plain step was timed."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        self._sums = [0.0] * 5
        self.fixed = self.extra = 0.0

    def plain(self, rows: int) -> float:
        """Seconds of a plain step of so many rows, 0 where none was timed: the nearest number's, if not its own."""
        if (known := self._plain.get(rows)) is not None:
            return known
        if not self._plain:
            return 0.0
        near = min(self._plain, key=lambda n: (abs(n - rows), n))
        return self._plain[near]

    def saw_plain(self, rows: int, seconds: float) -> None:
        """A plain step took that long."""
        old = self._plain.get(rows)
        if old is None:
            self._plain[rows] = seconds
            if not self._sums[0]:
                self._sums = _prior(rows, seconds)
                self._fit(rows, seconds)
            return
        self._plain[rows] = old + RATE * (min(max(seconds, old / 2), 2 * old) - old)

    def saw_checked(self, rows: int, drafted: int, seconds: float) -> None:
        """A step that checked so many drafted tokens took that long."""
        plain = self.plain(rows)
        over = min(max(seconds - plain, 0.0), plain / 2 + plain / rows * drafted)
        self._mix(KEPT, _sums(drafted, over))
        self._fit(rows, plain)

    def relax(self, rows: int) -> None:
        """Nothing was checked for a while: some of what was learnt gives way to what was assumed."""
        plain = self.plain(rows)
        self._mix(RELAXED, [(1 - RELAXED) * one for one in _prior(rows, plain)])
        self._fit(rows, plain)

    def _mix(self, kept: float, new: list[float]) -> None:
        self._sums = [kept * old + one for old, one in zip(self._sums, new, strict=True)]

    def _fit(self, rows: int, plain: float) -> None:
        w, x, y, xx, xy = self._sums
        spread = xx - x * x / w
        slope = (xy - x * y / w) / spread if spread > 1e-9 else self.extra
        self.extra = min(max(slope, 0.002 * plain), plain / rows)
        self.fixed = max(0.0, (y - self.extra * x) / w)


def _sums(x: float, y: float) -> list[float]:
    return [1.0, x, y, x * x, x * y]


def _prior(rows: int, plain: float) -> list[float]:
    points = [_sums(x, plain * FIXED + x * plain / (rows + SPARE)) for x in SEEN]
    return [sum(values) for values in zip(*points, strict=True)]
