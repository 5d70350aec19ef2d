"""Where the numbers of a derivation come from: those of the question, and the results of earlier steps.

Only for a question that it `fits`: a story or sum whose own whole numbers, as they stand, are all that its solution
computes with. It is in prose, gives at least two numbers in digits, and has none of

- algebra: LaTeX, powers, equations, single letters as names, or words for them ("variable", "integer", "digits");
- decimals, percentages, fractions, ratios, clock times and dates in digits;
- words that compute with numbers of their own: half, twice, a dozen, average, percent, per, every, rate, older than;
- two units of one quantity, which a solution converts, or money.

Elsewhere people compute with numbers of their own (60 minutes, 100 %, a half as 2), use a number as often as they like,
and go on after the answer, so nothing is measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from reason_engine.types import Problem
from reason_engine.verifiers.process_rules.units import convertible

PART, CONSTANT = 0.9, 0.3
"""How well a part of a known number is grounded, and one of the numbers that everybody knows."""
NUMBERS, WORDS = 2, 16
"""Of one sentence of a question that the ledger fits."""
LOOSE, UNREAD, AGAIN = 0.5, 0.7, 0.8
"""Factors of an answer for each result that nothing used, each number of the question that nothing used, and each use
of one beyond those."""


def fits(problem: Problem) -> bool:
    """Whether the question is one that the ledger can judge."""
    asked = _LISTED.sub(" ", problem.asked)
    if len(_WHOLE.findall(asked)) < 2 or convertible(re.findall(r"[a-z]{2,}", asked.lower())):
        return False
    if _UNFIT_SIGNS.search(asked) or _UNFIT_WORDS.search(asked):
        return False
    sentences = [sentence for sentence in re.split(r"[.?!\n]+", asked) if sentence.strip()]
    return all(len(_WHOLE.findall(one)) <= NUMBERS and len(one.split()) <= WORDS for one in sentences)


@dataclass
class Ledger:
    """The numbers of a derivation: those known so far, and how often each was used.

    A number that a step computes with should stand in the question or be the result of an earlier step; a number from
    nowhere is the usual sign of a misread question. A number may be taken in parts by place value (23 as 20 and 3),
    each half a use. At the end every result should have been used, the last one is the answer, and each number of the
    question should have been used as often as it stands there: less often where it only distracts, more often where a
    product is written out in parts. Results may be used again at no cost.

    `given`: the numbers of the question; `beside`: those of texts around it, which need not be used.
    """

    given: tuple[Fraction, ...]
    beside: tuple[Fraction, ...] = ()
    results: list[Fraction] = field(default_factory=list[Fraction])
    used: dict[Fraction, float] = field(default_factory=dict[Fraction, float])

    def take(self, operands: Iterable[Fraction]) -> float:
        """Use these numbers; how well the worst of them is grounded, from 0 to 1."""
        grounds = [(number, self._grounded(number)) for number in operands]
        worst = min((ground for _, ground in grounds), default=1.0)
        share = 0.5 if PART in (ground for _, ground in grounds) else 1.0
        for number, ground in grounds:
            self._use(number, ground, share)
        return worst

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

    def _use(self, number: Fraction, ground: float, share: float) -> None:
        """A part is half a use of the number that it is of; where it may be of several, of the one used least."""
        if ground == PART:
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
_LISTED = re.compile(r"^\s*[A-Z]\)", re.MULTILINE)
_WHOLE = re.compile(r"(?<![\w.,])\d{1,12}(?![\w%]|[.,]\d)")
_UNFIT_SIGNS = re.compile(
    r"[\\^_=%$\u20ac\u00a3\u00b0{}|<>]|\d[.:/,-]\d|\d[A-Za-z]|(?<![\w'\u2019])[B-HJ-Zb-hj-z](?![\w'\u2019.])"
)
_UNFIT_WORDS = re.compile(
    r"\b(?:half|halves|twice|thrice|doubl\w*|tripl\w*|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?|dozens?|"
    r"hundreds?|thousands?|pairs?|couple|averages?|mean|median|percent\w*|ratio|rate|fraction|per|every|speed|squares?|"
    r"cubes?|perimeter|area|volume|variables?|integers?|digits?|primes?|divisors?|factors?|multiples?|remainder|modulo|"
    r"base|probability|equations?|daily|weekly|weekends?|weekdays?|monthly|annual\w*|yearly|costs?|prices?|older|younger|"
    r"if|suppose|assum\w*|rest|others?|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|"
    r"times (?:more|less|fewer|longer)|all but|except)\b",
    re.IGNORECASE,
)
