"""Where the numbers of a derivation come from, and what becomes of them.

A number that a step computes with should stand in the question or be the result of an earlier step; a number from
nowhere is the usual sign of a misread question. A number may be taken in parts by place value (23 as 20 and 3), each
half a use. At the end every result should have been used, the last one is the answer, and each number of the question
should have been used as often as it stands there: less often where it only distracts, more often where a product is
written out in parts. Results may be used again at no cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

PART, CONSTANT = 0.9, 0.3
"""How well a part of a known number is grounded, and one of the numbers that everybody knows."""
LOOSE, UNREAD, AGAIN = 0.5, 0.7, 0.8
"""Factors of an answer for each result that nothing used, each number of the question that nothing used, and each use
of one beyond those."""


@dataclass
class Ledger:
    """The numbers known so far, and how often each was used. `given`: those of the question; `beside`: those of texts
    around it, which need not be used."""

    given: tuple[Fraction, ...]
    beside: tuple[Fraction, ...] = ()
    results: list[Fraction] = field(default_factory=list[Fraction])
    used: dict[Fraction, float] = field(default_factory=dict[Fraction, float])

    def take(self, operands: Iterable[Fraction]) -> float:
        """Use these numbers; how well the worst of them is grounded, from 0 to 1."""
        numbers = list(operands)
        worths = [self._grounded(number) for number in numbers]
        split = PART in worths
        for number, worth in zip(numbers, worths, strict=True):
            self._use(number, worth, 0.5 if split else 1.0)
        return min(worths, default=1.0)

    def put(self, result: Fraction) -> None:
        """A step's result is known from now on."""
        self.results.append(result)

    def derived(self, answer: Fraction) -> bool:
        """Whether the answer is the last result."""
        return not self.results or answer == self.results[-1]

    def spent(self) -> float:
        """1 where every result but the last and every given number was used; less for each that was not."""
        loose = sum(number not in self.used for number in self.results[:-1])
        unread = again = 0.0
        for number, there in Counter(self.given).items():
            uses = self.used.get(number, 0.0)
            unread += max(0.0, there - uses)
            if number not in self.results:
                again += max(0.0, uses - there)
        return LOOSE**loose * UNREAD**unread * AGAIN**again

    def _grounded(self, number: Fraction) -> float:
        known = self._known()
        if number in known:
            return 1.0
        if any(number in _parts(whole) for whole in known):
            return PART
        return CONSTANT if number in _CONSTANTS else 0.0

    def _use(self, number: Fraction, worth: float, share: float) -> None:
        """A part is half a use of the number that it is of; where it may be of several, of the one used least."""
        if worth == PART:
            wholes = [whole for whole in self._known() if number in _parts(whole)]
            number = min(wholes, key=lambda whole: self.used.get(whole, 0.0))
        self.used[number] = self.used.get(number, 0.0) + share

    def _known(self) -> list[Fraction]:
        return [*self.given, *self.beside, *self.results]


def _parts(number: Fraction) -> tuple[Fraction, ...]:
    """By place value, the first digit and the rest: 137 as 100 and 37. None of a fraction or a single digit."""
    if number.denominator != 1 or abs(number) < 10:
        return ()
    unit = 10 ** (len(str(abs(number))) - 1)
    first = abs(number) // unit * unit
    return Fraction(first), abs(number) - first


_CONSTANTS = frozenset(map(Fraction, (1, 2, 7, 10, 12, 24, 52, 60, 100, 365, 1000)))
