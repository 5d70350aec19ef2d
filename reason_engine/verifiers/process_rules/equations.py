"""Equations in text, each right, wrong, or not judged.

`She now has $1,200 + 25 = 1225 apples.` holds one equation of two sides; `2 + 3 = 5 * 2 = 10` holds three sides and is
judged pair by pair. Arithmetic is exact. An equation is *wrong* only if both its sides were certainly parsed (`sides`)
and it holds in none of their readings (`values`); one with a variable, a function, a sign that is not read, or in a
clause that denies it or computes modulo something, is not judged unless it holds.

Rounding: a bare decimal of k places holds within half a unit of its last place, or cut off there; a bare whole number
may be a rounded quotient; 0.33, 0.67 and 3.14 in a sum stand for what they round. `≈` holds within a tenth. A bare
number that another or a sum explains (`1 hour = 60 minutes`, `2 hours = 2 * 60`), sides whose units measure the same in
different sizes (minutes and hours), and those that differ by thousands left out in writing are not judged unless they
hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from reason_engine.verifiers.process_rules.notation import LONGEST, plain
from reason_engine.verifiers.process_rules.sides import Side, left_side, right_side
from reason_engine.verifiers.process_rules.tokens import Token, tokens
from reason_engine.verifiers.process_rules.units import FACTORS, convertible
from reason_engine.verifiers.process_rules.values import agree, values


@dataclass(frozen=True, slots=True)
class Equation:
    """Two neighbouring sides. `holds` is None where it is not judged. `operands` are the numbers of the left side (none
    where it does not compute: it is the result of the pair before), `result` is the right side's value."""

    left: str
    right: str
    holds: bool | None
    operands: tuple[Fraction, ...] = ()
    result: Fraction | None = None


def equations(text: str) -> list[Equation]:
    """Every pair of sides around a `=` or `≈` that both hold a number, in order; a text may have several lines."""
    if not any(sign in text for sign in ("=", "\u2248", "\\approx")):
        return []
    found: list[Equation] = []
    for line in plain(text).split("\n"):
        if len(line) <= LONGEST and ("=" in line or "\u2248" in line):
            found += _of_line(_BULLET.sub("", line))
    return found


def _of_line(line: str) -> Iterable[Equation]:
    found = tokens(line)
    modular = _MODULAR.search(line) is not None
    for at, token in enumerate(found):
        if token.kind == "relation":
            left, right = left_side(found, at), right_side(found, at)
            if any(part.kind == "number" for part in left.parts) and any(p.kind == "number" for p in right.parts):
                doubted = modular or _denied(found, at)
                yield _equation(left, right, token.text, doubted)


def _equation(left: Side, right: Side, relation: str, doubted: bool) -> Equation:
    firsts, seconds = values(left.parts) | values(left.shorter), values(right.parts) | values(right.shorter)
    pairs = [(a, b) for a in firsts for b in seconds]
    close = next(((a, b) for a, b in pairs if agree(a, b, left, right, (firsts[a], seconds[b]), relation)), None)
    holds = True if close else None
    certain = left.certain and right.certain and pairs and not doubted
    if not close and certain and not _named(left, right) and not _converted(left, right, pairs):
        holds = False
    first = next(iter(seconds), None)
    operands = tuple(Fraction(p.text) for p in left.parts if p.kind == "number") if left.computes and pairs else ()
    return Equation(str(left), str(right), holds, operands, close[1] if close else first)


def _denied(found: list[Token], at: int) -> bool:
    """Whether the clause around a relation says that it does not hold, or asks whether it does."""
    begin = next((place for place in range(at, -1, -1) if found[place].text in _STOPS), -1)
    end = next((place for place in range(at, len(found)) if found[place].text in _STOPS), len(found))
    clause = found[begin + 1 : end]
    asked = end < len(found) and found[end].text == "?"
    words = " ".join(token.text for token in clause if token.kind in ("word", "opaque")).replace("\u2019", "'")
    return asked or _DENIALS.search(words) is not None


def _named(left: Side, right: Side) -> bool:
    """Whether the left side is a number that the right one only explains."""
    return left.bare and (right.bare or not left.begun)


def _converted(left: Side, right: Side, pairs: Iterable[tuple[Fraction, Fraction]]) -> bool:
    """Whether the sides may differ by their units: thousands left out, or units of one quantity in different sizes."""
    folds = {max(abs(a / b), abs(b / a)) for a, b in pairs if a and b}
    if folds & _THOUSANDS:
        return True
    if not convertible(left.units | right.units):
        return False
    added = any(part.text in "+-" for part in left.parts + right.parts)
    return added or bool(folds & FACTORS)


_THOUSANDS = frozenset(Fraction(10**power) for power in (3, 6, 9))
_STOPS = frozenset(".;?!\n")
_DENIALS = re.compile(
    r"\b(?:is|does|do) not\b|\b(?:is|does|do|ca|could|would)n't\b|\bcannot\b|"
    r"\bnot (?:equal|true|right|correct|possible|valid)|"
    r"\b(?:wrong|incorrect|false|mistake\w*|impossible|contradict\w*)\b",
    re.IGNORECASE,
)
_MODULAR = re.compile(r"\b(?:mod|modulo|bmod|pmod|base|o'clock|a\.m|p\.m|am|pm|AM|PM)\b|\d\s?%\s?\d")
_BULLET = re.compile(r"^\s*(?:[*\u2022]|-(?!\s*\d)|\d{1,3}[.)])\s+")
