"""How long further whole paths would take, by the speed and the lengths of those that a run has drawn.

A step of an engine makes one token for each of its rows. It takes a seconds whoever shares it (reading the weights) and
b more for each row; so a stretch of S steps in which T tokens came took

    s = a S + b T          fitted by least squares over the stretches between the ends of paths, each weighed by 1 / S,
                           those of draws before the latest one half as much each time

Stretches of one width cannot tell a from b: `scaled` guesses then, cautiously. Nor is a fit believed that says more
than they do: a step of more rows takes at least LEAST_ROW of an even share for each of them, at most an even share.

The longest of n paths is taken to have mean + spread * sqrt(2 ln(n + 1)) tokens, which bounds the expected maximum of n
draws (Boucheron, Lugosi and Massart 2013, section 2.5); three paths say little of the spread, so it is at least
LEAST_SPREAD of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log, sqrt
from statistics import fmean, stdev

FADING = 0.5
"""What a stretch weighs once another draw came after it."""
LEAST_ROW, LEAST_SPREAD = 1 / 8, 0.25
APART = 0.25
"""Rows that stretches must differ by for a fit; tokens come in pieces, so widths are not exact."""
SHORTEST = 16
"""Steps of a stretch, for the same reason."""


@dataclass(slots=True)
class Stretch:
    """Steps that took `seconds` in all and made `tokens`."""

    seconds: float
    steps: int
    tokens: int
    weight: float = 1.0


class Laps:
    """The stretches of one draw while it runs: from its first token, or the end of a path, to another path's end."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.first: float | None = None
        self.stretches = list[Stretch]()
        self._at, self._had = began, list[int]()

    def gained(self, now: float, counts: Sequence[int], *, ended: bool = False) -> None:
        """Tokens have come: so many has each path by now. `ended`: they were the last of one."""
        if self.first is None:
            self.first = self._at = now
            self._had = list(counts)
        elif ended:
            self._end(now, counts, SHORTEST)

    def over(self, now: float, counts: Sequence[int]) -> None:
        """The draw is over; what there is has to say something, however short it is."""
        self._end(now, counts, 1 if not self.stretches else SHORTEST)

    def _end(self, now: float, counts: Sequence[int], least: int) -> None:
        had = [*self._had, *[0] * (len(counts) - len(self._had))]
        new = [after - before for after, before in zip(counts, had, strict=True)]
        if max(new, default=0) >= least:
            self.stretches.append(Stretch(now - self._at, max(new), sum(new)))
            self._at, self._had = now, list(counts)


@dataclass(slots=True)
class Forecast:
    """Of one run. `waited`: seconds that the latest draw had to wait for its first token; `ended`, `paths`: when it was
    over, and of how many paths."""

    stretches: list[Stretch] = field(default_factory=list[Stretch])
    waited: float = 0.0
    ended: float | None = None
    paths: int = 0

    def learn(self, laps: Laps, ended: float, paths: int) -> None:
        """A draw of whole paths is over."""
        if laps.stretches:
            for stretch in self.stretches:
                stretch.weight *= FADING
            self.stretches += laps.stretches
        self.waited = (ended if laps.first is None else laps.first) - laps.began
        self.ended, self.paths = ended, paths

    def step(self, rows: int, running: Sequence[Stretch] = ()) -> float | None:
        """Seconds of a step of so many rows; None while nothing is known. `running`: of a draw that is not over."""
        known = [*self.stretches, *running]
        steps = sum(one.weight * one.steps for one in known)
        if not steps:
            return None
        width = sum(one.weight * one.tokens for one in known) / steps
        each = sum(one.weight * one.seconds for one in known) / steps
        row = _row(known, width, each)
        if row is None:
            return scaled(each, width, rows)
        return each + row * (rows - width)

    def seconds(self, rows: int, lengths: Sequence[int]) -> float | None:
        """What so many more paths take together, by the lengths of those before; None while nothing is known."""
        each = self.step(rows)
        if each is None or not lengths:
            return None
        # Prompts may be read one after the other.
        return self.waited * max(1.0, rows / max(1, self.paths)) + each * likely_longest(lengths, rows)


def likely_longest(lengths: Sequence[int], n: int) -> float:
    """Tokens of the longest of n more paths."""
    mean = fmean(lengths)
    spread = max(stdev(lengths) if len(lengths) > 1 else 0.0, LEAST_SPREAD * mean)
    return mean + spread * sqrt(2 * log(n + 1))


def scaled(each: float, rows: float, wanted: int) -> float:
    """Seconds of a step of `wanted` rows where it is `each` at `rows`: half of it is shared by all, and no row more
    comes for less than an even share. A cautious guess for processors and cards alike."""
    return each * (wanted / rows if wanted > rows else (1 + wanted / rows) / 2)


def _row(known: Sequence[Stretch], width: float, each: float) -> float | None:
    """What one row adds to a step, within what is believed; None where all stretches are of one width."""
    across = sum(one.weight * (one.tokens - width * one.steps) ** 2 / one.steps for one in known)
    if across < APART**2 * sum(one.weight * one.steps for one in known):
        return None
    along = sum(
        one.weight * (one.tokens - width * one.steps) * (one.seconds - each * one.steps) / one.steps for one in known
    )
    share = each / width
    return min(share, max(LEAST_ROW * share, along / across))
