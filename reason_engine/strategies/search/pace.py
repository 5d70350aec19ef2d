"""How fast a search gets on, so that it ends within what it has.

What is measured is the time of a draw for each token of its longest path, with everything that the engine did beside
it. Nothing is known of a machine before the first draw, and others may use it too; so the latest draws count, and a
draw that runs is judged by its own speed. With s seconds a token at r rows, n rows are taken to need

    s(n) = s n / r  for n > r          s(n) = s (1 + n / r) / 2  for n < r

Half of a token's time is reading the weights, whoever shares it: a cautious guess for processors and cards alike.

A search is late once what is left is only enough to take its furthest states to their ends, and to value these as long
as the latest ones took. Ending so is no cut: the answer is the vote of what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reason_engine.runtime.budget import Budget
from reason_engine.runtime.forecast import scaled
from reason_engine.types import TokenLogprob

TYPICAL = 300
"""Tokens of a whole solution before one is known."""
SHORTEST = 64
"""Tokens that a state is given to come to its end, however much is written already."""
ANSWER = 32
"""Tokens that an end which time is short for may still have, those of the answer that it is asked for included."""
SPARE = 1.2
"""What plans are multiplied by."""
UNKNOWN = 0.5
"""Share of the seconds that is kept for the end while no speed is known."""
WARM = 8
"""Tokens of a draw after which its speed says something; the first of them waits for the prompt to be read."""


@dataclass(slots=True)
class Stint:
    """One draw while it runs: when its first token came, its rows and those beside it, tokens of each of its paths."""

    began: float
    rows: int
    tokens: dict[int, int] = field(default_factory=dict[int, int])

    def each(self, now: float, drawn: int) -> float | None:
        """Seconds a token, once so many tokens of the longest path say something."""
        return (now - self.began) / (drawn - 1) if drawn >= WARM else None


class Pace:
    """Speed and lengths of one search. `wanted`: ends that it is to come to, `ended`: those that it came to."""

    def __init__(self, budget: Budget, wanted: int) -> None:
        self._budget, self.wanted, self.ended = budget, wanted, 0
        self._whole = budget.seconds_left
        self.gave_way = False
        """Whether a draw was ended since the end of the search was due."""
        self._each: float | None = None
        self._rows, self._running, self._lengths = 1, 0, list[int]()
        self._valuing = 0.0

    def begin(self, rows: int) -> Stint:
        """A draw of so many paths begins."""
        self._running += rows
        return Stint(self._budget.seconds, self._running)

    def end(self, stint: Stint, rows: int, longest: int) -> None:
        """It is over, after the tokens of its longest path."""
        self._running -= rows
        if (each := stint.each(self._budget.seconds, longest)) is not None:
            self._each = each if self._each is None else (self._each + each) / 2
            self._rows = stint.rows

    def came_to_end(self, tokens: int) -> None:
        """A path of so many tokens has ended."""
        self.ended += 1
        self._lengths.append(tokens)

    def valued(self, seconds: float) -> None:
        """States were valued, all at once, in so many seconds."""
        self._valuing = max(seconds, (self._valuing + seconds) / 2)

    @property
    def values(self) -> bool:
        """Whether there is time to value states once more."""
        left = self._budget.seconds_left
        return left is None or SPARE * self._valuing < left

    def left(self, written: int) -> int:
        """Tokens that a state of so many is expected to need to its end."""
        typical = SPARE * sum(self._lengths) / len(self._lengths) if self._lengths else TYPICAL
        return max(SHORTEST, int(typical) - written)

    @property
    def missing(self) -> int:
        """Ends that are still wanted, at least one."""
        return max(1, self.wanted - self.ended)

    def late(self, written: int = 0) -> bool:
        """Whether it is time to take states of so many tokens to their ends. Notes where tokens are why."""
        if self._budget.free is not None and self._budget.free < SPARE * self.missing * self.left(written):
            self._budget.note("budget-tokens")
            return True
        return self.gave_way or self._short(self._each, self._rows, written)

    def rows(self, most: int, tokens: int, share: float = 1.0) -> int:
        """How many of `most` paths of so many tokens can be drawn within this share of the seconds that are left."""
        return next((n for n in range(most, 1, -1) if self.fits(n, tokens / share)), 1)

    def fits(self, rows: int, tokens: float) -> bool:
        """Whether there is time, and there are tokens, for so many paths of so many tokens."""
        left, free = self._budget.seconds_left, self._budget.free
        if free is not None and rows * tokens > free:
            return False
        return left is None or self._each is None or SPARE * (tokens * self._at(rows) + self._valuing) <= left

    def room(self, rows: int) -> int | None:
        """Tokens that each of so many paths can have before its answer has to be asked for; None: no limit."""
        left = self._budget.seconds_left
        if left is None or self._each is None:
            return None
        return max(ANSWER, int(left / (SPARE * self._at(rows))) - ANSWER)

    def watch(self, stint: Stint, written: int | None) -> Callable[[int, Sequence[TokenLogprob]], bool] | None:
        """Tells, at each of its tokens, whether a draw has to give way to the end of the search: to the ends of states
        as far as it is, `written` tokens before it, or, where it makes ends itself (None), to their answers. None: it
        never has."""
        if self._whole is None:
            return None

        def late(path: int, gained: Sequence[TokenLogprob]) -> bool:
            if not stint.tokens:
                stint.began = self._budget.seconds
            stint.tokens[path] = stint.tokens.get(path, 0) + len(gained)
            drawn = max(stint.tokens.values())
            each = stint.each(self._budget.seconds, drawn)
            if written is None:
                short = self._less(2 * ANSWER, each, stint.rows, stint.rows)
            else:
                short = self.gave_way or self._short(each, stint.rows, written + drawn)
            self.gave_way = self.gave_way or short
            return short

        return late

    def _short(self, each: float | None, rows: int, written: int) -> bool:
        left = self._budget.seconds_left
        if each is None:
            return left is not None and left < UNKNOWN * (self._whole or 0.0)
        return self._less(self.left(written) + ANSWER, each, rows, self.missing)

    def _less(self, tokens: int, each: float | None, rows: int, wanted: int) -> bool:
        """Whether less time is left than so many paths of so many tokens need, by the speed of a draw."""
        left = self._budget.seconds_left
        if left is None or each is None:
            return False
        return left < SPARE * (tokens * scaled(each, rows, wanted) + self._valuing)

    def _at(self, rows: int) -> float:
        return scaled(self._each or 0.0, self._rows, rows)
