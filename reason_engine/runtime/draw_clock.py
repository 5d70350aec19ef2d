"""The time of one draw: until when its paths may run, if one more would end in time, and what was learned of it."""

from __future__ import annotations

from collections.abc import Sequence

from reason_engine.runtime.answering import FORCED
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.forecast import Forecast, Laps, likely_longest
from reason_engine.types import Path

LATEST = 0.2
"""Of the seconds of a run, the most that are kept for forced answers."""


def asking_seconds(most: float, each: float, tokens: int = FORCED) -> float:
    """Of a run of so many seconds, those that are kept for forced answers where a token takes `each`."""
    return min(most * LATEST, 1.5 * each * tokens)


class DrawClock:
    """Of one draw that begins now. `whole`: its paths are to be answers, `reserve`: tokens that each keeps for a forced
    one."""

    def __init__(self, budget: Budget, forecast: Forecast, *, whole: bool, reserve: int) -> None:
        self._budget, self._forecast, self._whole, self._reserve = budget, forecast, whole, reserve
        self._laps = Laps(budget.seconds)

    def seconds(self, counts: Sequence[int]) -> float | None:
        """Seconds that paths of so many tokens may still take, so that those without an answer can be asked for one
        before the deadline; None: no limit."""
        left, most = self._budget.seconds_left, self._budget.limits.seconds
        if left is None or most is None or not self._reserve:
            return left
        drawn = max(counts, default=0)
        each = (self._budget.seconds - self._laps.began) / drawn if drawn else 0.0
        return left - asking_seconds(most, each, self._reserve)

    def too_late(self, done: Sequence[Path], counts: Sequence[int], rows: int) -> bool:
        """Whether an answer that was begun now, with so many rows beside it, would not end in time, by those of this
        draw that have ended."""
        lengths = [path.tokens for path in done if path.finished]
        if not self._whole or not lengths or (left := self.seconds(counts)) is None:
            return False
        each = self._forecast.step(rows + 1, self._laps.stretches)
        return each is not None and left < each * likely_longest(lengths, 1)

    @property
    def begun(self) -> bool:
        """Whether its first token has come."""
        return self._laps.first is not None

    def gained(self, counts: Sequence[int], *, ended: bool) -> None:
        """So many tokens has each path by now. `ended`: one of them has had its last."""
        self._laps.gained(self._budget.seconds, counts, ended=ended)

    def over(self, counts: Sequence[int], paths: int) -> None:
        """The draw is over, with so many paths: the run learns how long further ones would take."""
        if self._whole and paths:
            now = self._budget.seconds
            self._laps.over(now, counts)
            self._forecast.learn(self._laps, now, paths)
