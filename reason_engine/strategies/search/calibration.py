"""Tells what a model's "yes" is worth: its probability for a state against that for states that are worth nothing.

Contextual calibration, Zhao et al. 2021, arXiv:2102.09690, section 4: the probabilities of the options are divided by
those after an input without content, here solutions that solve nothing, and normalised again. With p the probability of
yes after a state and r the mean (of the log-odds) after the worthless ones

    v = p (1 - r) / (p (1 - r) + r (1 - p)),   logit v = logit p - logit r

so that a state worth no more than nonsense has v = 1/2. Small chat models say yes to everything: their values are not
followed where no state is told from nonsense by odds of `TELLS`, or where all states have one value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import exp, log

from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context

WORTHLESS = ("2 + 2 = 5, so the answer is -1.", "The sky is blue, so the answer is a banana.")
TELLS = 0.75
"""The least value of the best state of a search that is followed: odds of three to one against nonsense."""
FEW, MANY = 3, 16
"""States to be seen before values are found to tell nothing from nonsense; before they are found to be all the same."""
SAME, CLEAR = 0.05, 0.95
"""Values that lie closer together are one, which says nothing, unless it is as far from nonsense as the second."""


class Calibration:
    """Of the values of one search."""

    def __init__(self) -> None:
        self._constant: float | None = None
        self._seen: dict[str, float] = {}

    async def measure(self, ctx: Context, ask: Callable[[str], Awaitable[float]]) -> None:
        """Ask about what is worth nothing; without budget for it, values stay as they are."""
        try:
            found = [p for p in await ctx.gather_within_budget(ask, WORTHLESS) if p is not None]
        except BudgetExhausted:
            return
        self._constant = sum(map(_logit, found)) / len(found)
        ctx.note(worthless=round(_odds(self._constant), 4))

    def value(self, key: str, probability: float) -> float:
        """The value of the state of this key."""
        value = probability if self._constant is None else _odds(_logit(probability) - self._constant)
        self._seen[key] = value
        return value

    @property
    def fault(self) -> str:
        """Why the values are not to be followed; empty where they are."""
        seen = self._seen.values()
        if self._constant is not None and len(seen) >= FEW and max(seen) < TELLS:
            return "the model finds no state better than nonsense"
        clear = self._constant is not None and min(seen, default=0.0) >= CLEAR
        if len(seen) >= MANY and max(seen) - min(seen) < SAME and not clear:
            return "the model gives all states one value"
        return ""


def _logit(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return log(p / (1 - p))


def _odds(logit: float) -> float:
    return 1 / (1 + exp(-logit))
