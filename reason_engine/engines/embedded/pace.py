"""What a step costs, learnt while serving: whether drafts pay is a question of this machine, this model and this batch.

    plain(B)          seconds of a step that gives B rows one token each
    checked(B, X)     plain(B) + fixed + extra * X: the same with X drafted tokens to be checked

Each plain(B) is a running mean that takes no single measurement at more than double or less than half, since other
processes interrupt. `fixed` and `extra` are a least-squares line through decayed sums of the excess of checked steps.
"""

from __future__ import annotations

RATE = 0.1
KEPT = 0.98
FIXED, EXTRA = 0.15, 0.06
"""The line to begin with, as shares of a plain step."""
SEEN = (0.0, 8.0)
"""The two places where the first line counts as one measurement each."""


class Pace:
    """Knows nothing until a plain step was timed."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        self._sums: list[float] = []
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
            if not self._sums:
                self._begin(seconds)
            return
        self._plain[rows] = old + RATE * (min(max(seconds, old / 2), 2 * old) - old)

    def saw_checked(self, rows: int, drafted: int, seconds: float) -> None:
        """A step that checked so many drafted tokens took that long."""
        plain = self.plain(rows)
        expected = self.fixed + self.extra * drafted
        over = min(max(seconds - plain, -0.2 * plain), 2 * expected + plain)
        w, x, y, xx, xy = self._sums
        new = (1.0, drafted, over, drafted * drafted, drafted * over)
        self._sums = [KEPT * old + one for old, one in zip((w, x, y, xx, xy), new, strict=True)]
        self._fit(plain)

    def _begin(self, plain: float) -> None:
        ys = [plain * (FIXED + EXTRA * x) for x in SEEN]
        self._sums = [
            2.0, sum(SEEN), sum(ys), sum(x * x for x in SEEN), sum(x * y for x, y in zip(SEEN, ys, strict=True)),
        ]  # fmt: skip
        self._fit(plain)

    def _fit(self, plain: float) -> None:
        w, x, y, xx, xy = self._sums
        spread = xx - x * x / w
        slope = (xy - x * y / w) / spread if spread > 1e-9 else self.extra
        self.extra = max(slope, 0.002 * plain)
        self.fixed = max(0.0, (y - self.extra * x) / w)
