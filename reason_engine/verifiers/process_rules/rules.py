"""The form of a step: what can be said against it without knowing what it means.

Where the numbers of a derivation come from, and what becomes of them.

A number that a step computes with should stand in the question or be the result of an earlier step; a number from
nowhere is the usual sign of a misread question. A number may be taken in parts by place value (23 as 20 and 3), each
half a use. At the end every result should have been used, the last one is the answer, and each number of the question
should have been used as often as it stands there: less often where it only distracts, more often where a product is
written out in parts. Results may be used again at no cost.

How far quoted sources bear a sentence out.

    support(s) = max over passages p of  |words(s) & words(p)| / |words(s)|,   halved for each number of s that p lacks

Words are lower-cased, without endings of plurals and tenses and without the most common ones. A measure of wording,
not of meaning: it tells an invented fact from a quoted one, not a true one from its negation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from reason_engine.types import Passage
from reason_engine.verifiers.process_rules.equations import LONGEST, Equation, numbers

REPEATS = 4
"""A phrase that stands so often in a row is a model in a loop."""


def well_formed(
    text: str, found: Sequence[Equation], said: Collection[str], marker: str | None = None
) -> str:
    """What is wrong with the form of a step; empty where nothing is. `said`: the steps before it."""
    line = " ".join(text.split())
    if not line:
        return "empty"
    if len(text) > 2 * LONGEST:
        return "overlong"
    if line in said:
        return "said before"
    if not _balanced(line):
        return "a bracket is open"
    if any(equation.holds is None for equation in found) or _DANGLING.search(line):
        return "an equation that does not parse"
    if marker is not None and line.startswith(marker) and not line[len(marker) :].strip():
        return "no answer after its mark"
    if _LOOP.search(line):
        return "a phrase again and again"
    return ""


def _balanced(line: str) -> bool:
    """Whether every bracket closes its own kind; a lone closing one after a number or letter is a list's mark."""
    opened: list[str] = []
    for sign in re.sub(r"^\s*\w{1,3}\)", "", line):
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return False
    return not opened


_PAIRS = {")": "(", "]": "[", "}": "{"}
_DANGLING = re.compile(r"\d\s*[-+*/]\s*=|=\s*$|=\s*[+*/]\s*\d|\d\s*[+*/]\s*$")
_LOOP = re.compile(rf"(\b\w.{{2,40}}?)\1{{{REPEATS - 1},}}")


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


def support(text: str, passages: Sequence[Passage]) -> float:
    """From 0 to 1; 1 for a sentence without any word that counts."""
    claim = _CITED.sub(" ", text)
    words, figures = _words(claim), set(numbers(claim))
    if not words and not figures:
        return 1.0
    best = 0.0
    for passage in passages:
        there = _words(passage.text)
        share = len(words & there) / len(words) if words else 1.0
        best = max(best, share * 0.5 ** len(figures - set(numbers(passage.text))))
    return best


def _words(text: str) -> set[str]:
    found = (word for word in _WORD.findall(text.lower()[:10_000]) if word not in _COMMON)
    return {word.removesuffix("'s").removesuffix("es").removesuffix("s").removesuffix("ed") for word in found}


_WORD = re.compile(r"[^\W\d_][\w'-]+")
_CITED = re.compile(r"\[\d{1,3}\]|^\s*[Aa]nswer:")
_COMMON_WORDS = (
    "the an and or of to in on at by for from with as is are was were be been it its this that these those he she they "
    "his her their has have had do does did not so then there here which who what when how much many more now"
)
_COMMON = frozenset(_COMMON_WORDS.split())
