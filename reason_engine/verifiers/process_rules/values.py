"""The values that a side may have, one for each reading.

People write the same signs with several meanings: 20 % as 1/5, as 20 of a unit, or of what stands before it
(50 - 20 %); `8 / 1/3` with 1/3 as one number; `6 / 2(3)` with 2(3) as one factor; `1 1/2` as a mixed number; `5!` as a
factorial or with an exclamation mark; a leading minus as a list's mark. An equation is right if it holds in one
reading, and wrong only if it holds in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice, product

from reason_engine.verifiers.process_rules.expression import Expression, Percent, Reading, Tight
from reason_engine.verifiers.process_rules.sides import Side
from reason_engine.verifiers.process_rules.tokens import Token

MOST, READINGS = 100, 36
"""Tokens of a side, and readings, beyond which it is not read."""


def values(parts: Sequence[Token]) -> dict[Fraction, Reading]:
    """Every value with a reading that gives it; empty where the side is no arithmetic."""
    found: dict[Fraction, Reading] = {}
    if 0 < len(parts) <= MOST:
        for reading in islice(_readings(parts), READINGS):
            try:
                found.setdefault(Expression(parts, reading).value(), reading)
            except (ValueError, ZeroDivisionError):
                continue
    return found


def _readings(parts: Sequence[Token]) -> Iterator[Reading]:
    texts = {part.text for part in parts}
    glued = any(part.kind == "open" and part.glued for part in parts)
    percents: tuple[Percent, ...] = ("share", "unit", "relative") if "%" in texts else ("share",)
    tights: tuple[Tight, ...] = ("no", "divisor", "glued") if sum(p.text == "/" for p in parts) > 1 else ("no",)
    both, no = (False, True), (False,)
    yield from (
        Reading(*chosen)
        for chosen in product(
            percents,
            tights,
            both if glued else no,
            (True, False) if "⟦" in texts or "/" in texts else (True,),
            both if "!" in texts else no,
            both if parts[0].text == "-" else no,
        )
    )


def agree(a: Fraction, b: Fraction, left: Side, right: Side, readings: tuple[Reading, Reading], relation: str) -> bool:
    """Whether a value of each side may stand for the other, as people round."""
    if a == b:
        return True
    if relation != "=":
        return abs(a - b) <= max(abs(a), abs(b)) / 10
    if any(abs(a - b) <= abs(a) * _looseness(part.text) for part in left.parts + right.parts if part.kind == "number"):
        return True
    for exact, rounded, side, reading in ((a, b, right, readings[1]), (b, a, left, readings[0])):
        if side.bare:
            unit = _last_place(side, reading)
            if abs(exact - rounded) <= unit / 2 and (unit < 1 or exact.denominator > 1):
                return True
            if abs(exact) > abs(rounded) and abs(exact - rounded) < unit and exact.denominator > 1:
                return True
    return False


def _last_place(side: Side, reading: Reading) -> Fraction:
    """The unit of the last place of a bare number."""
    text = next(part.text for part in side.parts if part.kind == "number")
    places = len(text.partition(".")[2])
    if side.parts[-1].kind == "percent" and reading.percent != "unit":
        places += 2
    return Fraction(1, 10**places)


def _looseness(number: str) -> Fraction:
    """By what share a number may differ from what it stands for: 0 of all but rounded sixths, as 0.33, and pi."""
    places = len(number.partition(".")[2])
    if places < 2:
        return Fraction(0)
    value, unit = Fraction(number), Fraction(1, 10**places)
    sixths = Fraction(round(value * 6), 6)
    rounded = [exact for exact in (sixths, _PI) if exact.denominator % 3 == 0 or exact is _PI]
    stands = any(-unit / 2 <= exact - value < unit for exact in rounded)
    return unit / value if stands else Fraction(0)


_PI = Fraction("3.14159265358979")
