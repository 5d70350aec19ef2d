"""Bare arithmetic: one to four operations, in words or as an expression.

Calculate (12 + 5) * 3 - 7.
Think step by step.
->
12 + 5 = 17
17 * 3 = 51
51 - 7 = 44
Answer: 44

Bare arithmetic, generated afresh from seeds that training never uses.

What is 12 + 5?      ->      17
"""

from __future__ import annotations

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.answers import Equality
from reason_engine.data import families
from reason_engine.data.formats.examples import STEPS, Example
from reason_engine.data.numbers import Expression
from reason_engine.evals import tasks
from reason_engine.evals.spec import Range
from reason_engine.recipes.equations import APPLY, Line, written_out
from reason_engine.types import Problem

ASKED = ("What is {text}?", "Calculate {text}.", "Compute {text}.", "How much is {text}?", "{text} = ?")


@families.register("arithmetic")
class Arithmetic(BaseModel):
    """`rationale`: share answered by steps; the rest gives the number at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rationale: float = Field(0.6, ge=0, le=1)
    operations: tuple[int, int] = (1, 4)
    digits: tuple[int, int] = (1, 3)

    def example(self, rng: random.Random) -> Example:
        lines, text = expression(rng, rng.randint(*self.operations), self.digits)
        question, answer = rng.choice(ASKED).format(text=text), f"Answer: {lines[-1].value}"
        if rng.random() >= self.rationale:
            return Example(question, answer, "arithmetic")
        return Example(f"{question}\n{STEPS}", "\n".join([*map(str, lines), answer]), "arithmetic")


def expression(rng: random.Random, operations: int, digits: tuple[int, int]) -> tuple[list[Line], str]:
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
        lines += written_out(rng, value, op, other)
        value = lines[-1].value
        whole = whole.join(op, Expression(other), value)
    return lines, whole.text


def _number(rng: random.Random, digits: tuple[int, int]) -> int:
    return rng.randint(2, 10 ** rng.randint(*digits) - 1)


@tasks.register("arithmetic")
class ArithmeticTask(BaseModel):
    """`operations`: of the expression. `digits`: of its numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operations: Range = Field((1, 1))
    digits: Range = Field((1, 2))

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """1,000 without a limit. Problem i depends on the seed and i alone."""
        return [self._problem(index, f"eval-arithmetic-{seed}-{index}") for index in range(limit or 1000)]

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        """Of other seeds than the problems of an evaluation."""
        return [self._problem(index, f"dev-arithmetic-{seed}-{index}") for index in range(limit or 200)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By equality of values."""
        return answer is not None and await equality.same(answer, problem.reference or "")

    def _problem(self, index: int, seed: str) -> Problem:
        rng = random.Random(seed)
        lines, text = expression(rng, rng.randint(*self.operations), self.digits)
        question = rng.choice(ASKED).format(text=text)
        return Problem(question, reference=str(lines[-1].value), task="arithmetic", meta={"index": index})
