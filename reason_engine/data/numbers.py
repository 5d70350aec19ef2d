"""Exact arithmetic on a few numbers: what can be reached, by which lines, and how an expression is written.

A state is a sorted tuple of rationals, int wherever the value is whole. Subtraction never goes below zero: every target
that can be reached at all can be reached so (swap the operands and let the sign move on), save negative ones.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from itertools import chain, combinations, combinations_with_replacement

Number = int | Fraction
State = tuple[Number, ...]
Move = tuple[str, Number, Number, Number, State]


@lru_cache(maxsize=1)
def held_out() -> frozenset[State]:
    """Puzzles of the Game of 24 test range. Nothing generated may use them, whatever the order or the target."""
    text = files("reason_engine.data").joinpath("held_out.txt").read_text("utf-8")
    rows = (line for line in text.splitlines() if line and not line.startswith("#"))
    return frozenset(tuple(int(word) for word in row.split()) for row in rows)


def is_development(state: State) -> bool:
    """Whether a set of four numbers is kept for choosing levels and checkpoints (about one in twelve)."""
    mixed = 0
    for number in state:
        mixed = (mixed * 31 + int(number) * 7 + 5) % 1_000_003
    return len(state) == 4 and mixed % 12 == 0


def usable(numbers: State) -> bool:
    """Whether training may use this set of numbers."""
    state = tuple(sorted(numbers))
    return state not in held_out() and not is_development(state)


@lru_cache(maxsize=100_000)
def operations(a: Number, b: Number) -> tuple[tuple[str, Number, Number, Number], ...]:
    """`(operator, left, right, value)` for all legal ways to join two numbers, larger operand first if it commutes."""
    high, low = (a, b) if a >= b else (b, a)
    found = [("+", high, low, high + low), ("-", high, low, high - low), ("*", high, low, high * low)]
    found.extend(("/", x, y, _quotient(x, y)) for x, y in ({(high, low), (low, high)}) if y)
    return tuple((op, x, y, whole(value)) for op, x, y, value in sorted(found, key=lambda f: (f[0], f[1] < f[2])))


def whole(value: Number) -> Number:
    """The int where the value is one."""
    return value.numerator if value.denominator == 1 else value


@lru_cache(maxsize=50_000)
def moves(state: State) -> tuple[Move, ...]:
    """All legal lines from a state, each with the state it leads to."""
    found: dict[tuple[Number, Number], list[Move]] = {}
    for i, j in combinations(range(len(state)), 2):
        if (pair := (state[i], state[j])) not in found:
            rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
            found[pair] = [(*line, tuple(sorted((*rest, line[3])))) for line in operations(*pair)]
    return tuple(chain.from_iterable(found.values()))


@lru_cache(maxsize=400_000)
def reachable(state: State) -> frozenset[Number]:
    """Every value that uses each number of the state exactly once."""
    if len(state) == 1:
        return frozenset(state)
    return frozenset().union(*(reachable(after) for after in {move[4] for move in moves(state)}))


class Expression:
    """A value with the text that made it; parentheses only where precedence needs them."""

    __slots__ = ("rank", "text", "value")

    def __init__(self, value: Number, text: str | None = None, rank: int = 2) -> None:
        self.value, self.text, self.rank = value, str(value) if text is None else text, rank

    def join(self, op: str, other: Expression, value: Number) -> Expression:
        """`self op other`; rank 0 is a sum, 1 a product, 2 a number."""
        rank = 0 if op in "+-" else 1
        left = f"({self.text})" if self.rank < rank else self.text
        tight = other.rank < rank or (other.rank == rank and op in "-/")
        right = f"({other.text})" if tight else other.text
        return Expression(value, f"{left} {op} {right}", rank)


def _quotient(a: Number, b: Number) -> Number:
    return Fraction(a, b) if isinstance(a, Fraction) or isinstance(b, Fraction) or a % b else a // b


@lru_cache(maxsize=4)
def games(highest: int, development: bool = False) -> tuple[State, ...]:
    """All sets of four numbers from 1 to `highest` that make 24 and that training (or development) may use."""
    sets = combinations_with_replacement(range(1, highest + 1), 4)
    allowed = (s for s in sets if s not in held_out() and is_development(s) == development)
    return tuple(s for s in allowed if 24 in reachable(s))
