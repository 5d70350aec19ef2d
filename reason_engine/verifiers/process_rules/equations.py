"""Equations in a line of prose: found, evaluated exactly, never executed.

`She now has $1,200 + 25 = 1225 apples.` holds one equation of two sides; `2 + 3 = 5 * 2 = 10` holds three sides and is
judged pair by pair. Decimals and percentages are exact fractions. A side written with k decimals is right within half
a unit of its last place, since people round.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from reason_engine.verifiers.arithmetic import evaluate

LONGEST = 2_000
"""Characters of a line beyond which nothing is looked for in it."""


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
    for match in _CHAIN.finditer(_BULLET.sub("", plain(line))):
        sides = [_trimmed(side) for side in re.split(r"=|\u2248", match[0])]
        found += [_pair(left, right) for left, right in pairwise(sides)]
    return found


def numbers(text: str) -> list[Fraction]:
    """Every number of a text, in order: digits, decimals, percentages (both 20 and 1/5), and small number words."""
    found: list[Fraction] = []
    for match in _NUMBER_OR_WORD.finditer(plain(text)[: 50 * LONGEST]):
        word = match["word"]
        if word:
            found.append(Fraction(_WORDS[word.lower()]))
            continue
        value = Fraction(match["number"])
        found += [value, value / 100] if match["percent"] else [value]
    return found


def plain(text: str) -> str:
    """Operators as ASCII, no thousands separators, currency signs, emphasis, or units before an operator."""
    for old, new in _SIGNS:
        text = text.replace(old, new)
    return _UNIT.sub("", _TIMES.sub("*", _THOUSANDS.sub("", text)))


def _pair(left: str, right: str) -> Equation:
    a, b = _value(left), _value(right)
    operands = tuple(numbers(left)) if re.search(r"\d\s*%?\s*\)*\s*[-+*/]", left) else ()
    if a is None or b is None:
        return Equation(left, right, None, operands, b)
    slack = max(_slack(left), _slack(right))
    holds = abs(a - b) <= slack
    if not holds and " " in left and (tight := _value(_TIGHT.sub(r"(\1/\2)", left))) is not None:
        holds = abs(tight - b) <= slack  # 8 / 1/3: what stands without spaces is one fraction
    return Equation(left, right, holds, operands, b)


def _value(side: str) -> Fraction | None:
    return evaluate(_DECIMAL.sub(_fraction, side), signed=True)[0]


def _fraction(match: re.Match[str]) -> str:
    value = Fraction(match[1]) / (100 if match[2] else 1)
    return str(value) if value.denominator == 1 else f"({value.numerator}/{value.denominator})"


def _slack(side: str) -> Fraction:
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


_SIDE = r"[-+*/(). \t%]*\d[-+*/(). \t%\d]{0,200}"
_CHAIN = re.compile(rf"{_SIDE}(?:[=\u2248]{_SIDE})+")
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,3}[.)])\s+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"(\d+(?:\.\d+)?)\s*(%)?")
_TIGHT = re.compile(r"(?<![\d)/])(\d+)/(\d+)(?![\d(/])")
_TIMES = re.compile(r"(?<=\d) ?[xX] ?(?=\d)")
_UNIT = re.compile(r"(?<=\d) {1,3}[A-Za-z]{1,20}(?= {0,3}[-+*/=])")
_SIGNS = (
    ("\u00d7", "*"), ("\u00f7", "/"), ("\u2212", "-"), ("\\times", "*"), ("\\div", "/"), ("\\cdot", "*"),
    ("**", ""), ("$", ""), ("\u20ac", ""), ("\u00a3", ""), ("`", ""),
)  # fmt: skip
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_WORDS: dict[str, Fraction] = {
    **{word: Fraction(value) for value, word in enumerate(_SMALL.split())},
    **{
        word: Fraction(10 * value)
        for value, word in enumerate(("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 3)
    },
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
