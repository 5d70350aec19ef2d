"""Bare arithmetic of one to four operations, in words or as an expression; and the lines that work it out.

    Calculate (12 + 5) * 3 - 7.
    Think step by step.
    ->
    12 + 5 = 17
    17 * 3 = 51
    51 - 7 = 44
    Answer: 44

An operation may be written at once (`12 + 25 = 37`) or in parts (`12 + 20 = 32`, `32 + 5 = 37`), so that samples vary
and a vote has something to choose from.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from reason_engine.data import STEPS, Example, Options, families
from reason_engine.data.numbers import Expression
from reason_engine.evals import tasks
from reason_engine.evals.datasets import Range
from reason_engine.recipes import GeneratedTask
from reason_engine.types import Problem

ASKED = ("What is {text}?", "Calculate {text}.", "Compute {text}.", "How much is {text}?", "{text} = ?")
APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


@families.register("arithmetic")
class Arithmetic(Options):
    """`rationale`: share answered by steps; the rest gives the number at once."""

    rationale: float = Field(0.6, ge=0, le=1)
    operations: tuple[int, int] = (1, 4)
    digits: tuple[int, int] = (1, 3)

    def example(self, rng: random.Random) -> Example:
        """Bare arithmetic: one to four operations, in words or as an expression."""
        lines, text = expression(rng, rng.randint(*self.operations), self.digits)
        question, value = rng.choice(ASKED).format(text=text), lines[-1].value
        if rng.random() >= self.rationale:
            return Example(question, f"Answer: {value}", "arithmetic")
        return Example(f"{question}\n{STEPS}", written(lines, value), "arithmetic")


@tasks.register("arithmetic")
class ArithmeticTask(GeneratedTask):
    """`operations`: of the expression. `digits`: of its numbers."""

    seeds: ClassVar[str] = "arithmetic"

    operations: Range = Field((1, 1))
    digits: Range = Field((1, 2))

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One expression."""
        lines, text = expression(rng, rng.randint(*self.operations), self.digits)
        question = rng.choice(ASKED).format(text=text)
        return Problem(question, reference=str(lines[-1].value), task="arithmetic", meta={"index": index})


def expression(rng: random.Random, operations: int, digits: tuple[int, int]) -> tuple[list[Equation], str]:
    """True lines that evaluate a random expression from the inside out, and its text."""
    value = _number(rng, digits)
    whole, lines = Expression(value), []
    for _ in range(operations):
        op, other = rng.choices("+-*/", (4, 4, 3, 2))[0], _number(rng, digits)
        if op == "*":
            other = rng.randint(2, 9)
        divisors = [d for d in range(2, 10) if value % d == 0]
        if op == "/" and divisors:
            other = rng.choice(divisors)
        if (op == "/" and not divisors) or (op == "-" and other > value) or APPLY[op](value, other) > 9999:
            op, other = ("+", other) if value + other <= 9999 else ("-", rng.randint(1, value))
        lines += work_out(rng, value, op, other)
        value = lines[-1].value
        whole = whole.join(op, Expression(other), value)
    return lines, whole.text


def written(lines: Iterable[object], answer: object) -> str:
    """The lines and the answer's line, as the model is taught to write them."""
    return "\n".join([*map(str, lines), f"Answer: {answer}"])


def _number(rng: random.Random, digits: tuple[int, int]) -> int:
    return rng.randint(2, 10 ** rng.randint(*digits) - 1)


@dataclass(frozen=True, slots=True)
class Equation:
    """`left op right = value`, all whole numbers."""

    left: int
    op: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.value}"


def equation(left: int, op: str, right: int) -> Equation:
    """The true equation."""
    return Equation(left, op, right, APPLY[op](left, right))


def work_out(rng: random.Random, left: int, op: str, right: int, split: float = 0.4) -> list[Equation]:
    """One valid way to do the operation; with probability `split` in parts, where its numbers have parts."""
    if op == "/" or rng.random() >= split:
        return [equation(left, op, right)]
    if op == "*":
        big, small = max(left, right), min(left, right)
        high, low = _parts(big)
        if not (high and low) or small > 99:
            return [equation(left, op, right)]
        first, second = equation(high, "*", small), equation(low, "*", small)
        return [first, second, equation(first.value, "+", second.value)]
    high, low = _parts(right)
    if not (high and low):
        return [equation(left, op, right)]
    first = equation(left, op, high)
    return [first, equation(first.value, op, low)]


def _parts(number: int) -> tuple[int, int]:
    unit = 10 ** (len(str(number)) - 1)
    return (0, number) if unit == 1 else (number // unit * unit, number % unit)
