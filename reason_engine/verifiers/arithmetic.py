"""Exact arithmetic in text: expressions, equations in prose, and where the numbers of a derivation come from.

Text is parsed by recursive descent, never evaluated as code:

    sum = product (("+" | "-") product)*    product = factor (("*" | "/") factor)*    factor = integer | "(" sum ")"

`She now has $1,200 + 25 = 1225 apples.` holds one equation of two sides; `2 + 3 = 5 * 2 = 10` holds three sides and is
judged pair by pair. Decimals and percentages are exact fractions. A side written with k decimals is right within half
a unit of its last place, since people round.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
LENGTH, DEPTH = 200, 40
"""Characters and nested brackets of an expression beyond which it has no value."""
LONGEST = 2_000
"""Characters of a line beyond which no equations are searched in it."""
PART, CONSTANT = 0.9, 0.3
"""How well a part of a known number is grounded, and one of the numbers that everybody knows."""
LOOSE, UNREAD, AGAIN = 0.5, 0.7, 0.8
"""Factors of an answer for each result that nothing used, each number of the question that nothing used, and each use
of one beyond those."""


def evaluate(text: str, *, signed: bool = False) -> tuple[Fraction | None, tuple[int, ...]]:
    """The value of an expression over non-negative integers, and the integers as they stand in it.

    The value is None where the text is no such expression, divides by zero, is over 200 characters or is nested
    over 40 deep. `signed`: one leading minus is allowed.
    """
    text = text.strip()
    if signed and text.startswith("-"):
        value, numbers = evaluate(text[1:])
        return (None if value is None else -value), numbers
    used: list[int] = []
    try:
        if len(text) > LENGTH:
            raise ValueError("too long")
        tokens = _tokens(text)
        value, after = _operations(tokens, next(tokens), used, 0)
        if after:
            raise ValueError(f"unexpected {after!r}")
        return value, tuple(used)
    except (ValueError, ZeroDivisionError):
        return None, ()


@dataclass(frozen=True, slots=True)
class Equation:
    """Two neighbouring sides. `holds` is None where a side is no arithmetic. `operands` are the numbers of the left
    side (none where it is a bare number: it is the result of the pair before), `result` is the right side's value."""

    left: str
    right: str
    holds: bool | None
    operands: tuple[Fraction, ...] = ()
    result: Fraction | None = None


def equations(line: str) -> list[Equation]:
    """Every pair of sides around a `=` that both hold a number, in order."""
    if "=" not in line or len(line) > LONGEST:
        return []
    found: list[Equation] = []
    for match in _CHAIN.finditer(_BULLET.sub("", _plain(line))):
        sides = [_trimmed(side) for side in re.split(r"=|\u2248", match[0])]
        found += [_equation(left, right) for left, right in pairwise(sides)]
    return found


def numbers(text: str) -> list[Fraction]:
    """Every number of a text, in order: digits, decimals, percentages (both 20 and 1/5), and small number words."""
    found: list[Fraction] = []
    for match in _NUMBER_OR_WORD.finditer(_plain(text)[: 50 * LONGEST]):
        if match["word"]:
            found.append(Fraction(_WORDS[match["word"].lower()]))
        else:
            value = Fraction(match["number"])
            found += [value, value / 100] if match["percent"] else [value]
    return found


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


def _tokens(text: str) -> Iterator[str]:
    """The tokens, then the empty string for ever."""
    text, place = _ascii(text), 0
    while match := _TOKEN.match(text, place):
        yield match[1]
        place = match.end()
    if text[place:].strip():
        raise ValueError(f"unexpected {text[place:][:1]!r}")
    while True:
        yield ""


def _operations(tokens: Iterator[str], token: str, used: list[int], depth: int, level: int = 0) -> tuple[Fraction, str]:
    """The value of a sum (level 0) or product (level 1) that begins with `token`, and the token after it."""
    if level == len(_LEVELS):
        return _factor(tokens, token, used, depth)
    value, token = _operations(tokens, token, used, depth, level + 1)
    while token in _LEVELS[level]:
        operation = OPERATIONS[token]
        right, token = _operations(tokens, next(tokens), used, depth, level + 1)
        value = operation(value, right)
    return value, token


def _factor(tokens: Iterator[str], token: str, used: list[int], depth: int) -> tuple[Fraction, str]:
    if token == "(" and depth < DEPTH:
        value, token = _operations(tokens, next(tokens), used, depth + 1)
        if token != ")":
            raise ValueError("a bracket is open")
        return value, next(tokens)
    if not token.isdecimal():
        raise ValueError(f"a number is wanted, not {token!r}")
    used.append(int(token))
    return Fraction(used[-1]), next(tokens)


def _equation(left: str, right: str) -> Equation:
    a, b = _value(left), _value(right)
    operands = tuple(numbers(left)) if re.search(r"\d\s*%?\s*\)*\s*[-+*/]", left) else ()
    if a is None or b is None:
        return Equation(left, right, None, operands, b)
    slack = max(_rounding(left), _rounding(right))
    holds = abs(a - b) <= slack
    if not holds and " " in left and (tight := _value(_TIGHT.sub(r"(\1/\2)", left))) is not None:
        holds = abs(tight - b) <= slack  # 8 / 1/3: what stands without spaces is one fraction
    return Equation(left, right, holds, operands, b)


def _value(side: str) -> Fraction | None:
    return evaluate(_DECIMAL.sub(_fraction, side), signed=True)[0]


def _fraction(match: re.Match[str]) -> str:
    value = Fraction(match[1]) / (100 if match[2] else 1)
    return str(value) if value.denominator == 1 else f"({value.numerator}/{value.denominator})"


def _rounding(side: str) -> Fraction:
    """Half a unit of the last place of a bare decimal; nothing else is rounded."""
    match = re.fullmatch(r"-?\d+\.(\d+)", side)
    return Fraction(1, 2 * 10 ** len(match[1])) if match else Fraction(0)


def _trimmed(side: str) -> str:
    """Without what only borders on it: an opened bracket of the text after, a full stop, a comma."""
    side = side.strip().rstrip("(+-*/.,: ").lstrip("),.*/ ")
    while side.count("(") > side.count(")") and side.startswith("("):
        side = side[1:].strip()
    while side.count(")") > side.count("(") and side.endswith(")"):
        side = side[:-1].strip()
    return side


def _plain(text: str) -> str:
    """Operators as ASCII, no thousands separators, currency signs, emphasis, or units before an operator."""
    text = _ascii(text)
    for sign in ("**", "$", "\u20ac", "\u00a3", "`"):
        text = text.replace(sign, "")
    return _UNIT.sub("", _TIMES.sub("*", _THOUSANDS.sub("", text)))


def _ascii(text: str) -> str:
    for old, new in _OPERATORS:
        text = text.replace(old, new)
    return text


_OPERATORS = (
    ("\u00d7", "*"), ("\u00f7", "/"), ("\u2212", "-"), ("\\times", "*"), ("\\div", "/"), ("\\cdot", "*"),
)  # fmt: skip
_LEVELS = (("+", "-"), ("*", "/"))
_TOKEN = re.compile(r"[ \t]*([0-9]{1,12}|[-+*/()])")
_SIDE = r"[-+*/(). \t%]*\d[-+*/(). \t%\d]{0,200}"
_CHAIN = re.compile(rf"{_SIDE}(?:[=\u2248]{_SIDE})+")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,3}[.)])\s+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"(\d+(?:\.\d+)?)\s*(%)?")
_TIGHT = re.compile(r"(?<![\d)/])(\d+)/(\d+)(?![\d(/])")
_TIMES = re.compile(r"(?<=\d) ?[xX] ?(?=\d)")
_UNIT = re.compile(r"(?<=\d) {1,3}[A-Za-z]{1,20}(?= {0,3}[-+*/=])")
_CONSTANTS = frozenset(map(Fraction, (1, 2, 7, 10, 12, 24, 52, 60, 100, 365, 1000)))
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_WORDS: dict[str, Fraction] = {
    **{word: Fraction(value) for value, word in enumerate(_SMALL.split())},
    **{word: Fraction(10 * value) for value, word in enumerate(_TENS.split(), 3)},
    "hundred": Fraction(100), "thousand": Fraction(1000), "dozen": Fraction(12), "half": Fraction(1, 2),
    "halves": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4), "twice": Fraction(2),
    "double": Fraction(2), "doubles": Fraction(2), "triple": Fraction(3), "triples": Fraction(3), "thrice": Fraction(3),
    "once": Fraction(1),
}  # fmt: skip
_NUMBER_OR_WORD = re.compile(
    r"(?<![\w.])(?P<number>\d{1,30}(?:\.\d{1,30})?)(?P<percent>\s?%|\spercent)?|\b(?P<word>"
    + "|".join(_WORDS)
    + r")\b",
    re.IGNORECASE,
)
