"""Equations as rationale lines, and the valid ways to write one operation out.

`12 + 25 = 37` may be written at once or as `12 + 20 = 32`, `32 + 5 = 37`: a vote feeds on that variety.
"""

from __future__ import annotations

import operator
import random
from dataclasses import dataclass

APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


@dataclass(frozen=True, slots=True)
class Line:
    """`left op right = value`, all whole numbers."""

    left: int
    op: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.value}"


def line(left: int, op: str, right: int) -> Line:
    """The true equation."""
    return Line(left, op, right, APPLY[op](left, right))


def written_out(rng: random.Random, left: int, op: str, right: int, split: float = 0.4) -> list[Line]:
    """One valid way to do the operation; with probability `split` in parts, where its numbers have parts."""
    if op == "/" or rng.random() >= split:
        return [line(left, op, right)]
    if op == "*":
        big, small = max(left, right), min(left, right)
        high, low = _parts(big)
        if not (high and low) or small > 99:
            return [line(left, op, right)]
        first, second = line(high, "*", small), line(low, "*", small)
        return [first, second, line(first.value, "+", second.value)]
    high, low = _parts(right)
    if not (high and low):
        return [line(left, op, right)]
    first = line(left, op, high)
    return [first, line(first.value, op, low)]


def _parts(number: int) -> tuple[int, int]:
    unit = 10 ** (len(str(number)) - 1)
    return (0, number) if unit == 1 else (number // unit * unit, number % unit)
