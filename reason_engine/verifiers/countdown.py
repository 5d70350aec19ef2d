"""`countdown`: the exact checker of Game of 24 and Countdown, as a verifier and as a task's checker.

A step is a line `10 - 5 = 5 (left: 4 5 6)`, the last line `Answer: (10 - 4) * (5 - 1) = 24`. All arithmetic is
rational and exact. It checks whether a line is legal and whether an expression is right; it never proposes one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Self

from pydantic import BaseModel, Field

from reason_engine.contracts import Call
from reason_engine.errors import RequestError
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.arithmetic import OPERATIONS, evaluate

Number = Annotated[int, Field(ge=0, le=1_000_000)]


@verifiers.register("countdown")
class Countdown(BaseModel, extra="forbid", frozen=True):
    """Reach `target` with `numbers`, each used exactly once, and + - * /. Unset fields are read from the problem."""

    numbers: tuple[Number, ...] = Field((), max_length=12, description="the numbers to use, each once")
    target: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] | None = Field(None, description="what to make of them")

    @classmethod
    def from_groups(cls, groups: Mapping[str, str | None]) -> Self:
        """From the named groups of a task's pattern: `numbers`, and `target` unless it is 24. Raises RequestError."""
        try:
            return cls(numbers=_integers(groups.get("numbers") or ""), target=int(groups.get("target") or 24))
        except ValueError:  # pydantic's kind too
            raise RequestError("these are no numbers and target of a Countdown game", param="messages") from None

    def of(self, problem: Problem) -> Countdown:
        """This checker with what is unset from the problem's `meta`, else from its wording. Raises RequestError."""
        numbers, target = self.numbers or problem.meta.get("numbers"), self.target
        target = problem.meta.get("target") if target is None else target
        if not numbers and (found := _NUMBERS.search(problem.asked)):
            numbers = _integers(found[1])
        if target is None and (found := _TARGET.search(problem.asked)):
            target = int(found[1])
        if not numbers or target is None:
            raise RequestError(
                "the verifier 'countdown' finds no numbers or no target in the question; give them as params",
                param="reasoning.verifier.params." + ("target" if numbers else "numbers"),
            )
        return Countdown(numbers=tuple(numbers), target=target)

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """1 for a right expression, 0 for a wrong one or none."""
        checker = self.of(problem)
        return [Score(float(p.answer is not None and checker.solved(p.answer)), "countdown") for p in paths]

    def solved(self, answer: str) -> bool:
        """Whether the expression, with or without `= target`, uses each number once and equals the target."""
        expression, _, claimed = answer.removeprefix("Answer:").partition("=")
        if claimed and evaluate(claimed, signed=True)[0] != self.target:
            return False
        value, used = evaluate(expression)
        return value is not None and value == self.target and Counter(used) == Counter(self.numbers)

    def step_ok(self, steps: Sequence[str]) -> bool:
        """Whether the last line is legal: its operands are there, its arithmetic and its list of what is left right."""
        left = self._left(steps[:-1])
        if not steps or left is None:
            return False
        if steps[-1].lstrip().startswith("Answer:"):
            return self.solved(steps[-1].strip())
        return _after(left, steps[-1]) is not None

    def state(self, steps: Sequence[str]) -> str:
        """`4 5 6 make 24`: what is left, ascending, and the target. Lines that are no legal step change nothing."""
        left: Counter[Fraction] = Counter(map(Fraction, self.numbers))
        for line in steps:
            left = _after(left, line) or left
        return f"{' '.join(str(n) for n in sorted(left.elements()))} make {self.target}"

    def outcome(self, steps: Sequence[str]) -> bool | None:
        """Once legal steps have left one number: whether it is the target."""
        left = self._left(steps)
        return None if left is None or left.total() > 1 else next(iter(left)) == self.target

    def _left(self, steps: Sequence[str]) -> Counter[Fraction] | None:
        """What these lines leave, or None where one in the form of a step is wrong. Other lines change nothing."""
        left: Counter[Fraction] | None = Counter(map(Fraction, self.numbers))
        for line in steps:
            if left is not None and _STEP.fullmatch(line.strip()):
                left = _after(left, line)
        return left


def _after(left: Counter[Fraction], line: str) -> Counter[Fraction] | None:
    """The numbers after one step, or None where the step is illegal."""
    match = _STEP.fullmatch(line.strip()) if len(line) <= 200 else None
    if match is None or any(_over_zero(match[name]) for name in ("a", "b", "result")):
        return None
    a, b, result = (Fraction(match[name]) for name in ("a", "b", "result"))
    taken = Counter([a, b])
    if not taken <= left or (match["op"] == "/" and not b) or OPERATIONS[match["op"]](a, b) != result:
        return None
    rest = left - taken + Counter([result])
    listed = match["left"].replace(",", " ").split()
    if any(_over_zero(n) for n in listed) or Counter(map(Fraction, listed)) != rest:
        return None
    return rest


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]{1,12}", text))


def _over_zero(number: str) -> bool:
    return "/" in number and not number.partition("/")[2].strip("0")


_NUMBER = r"-?[0-9]{1,12}(?:/[0-9]{1,12})?"
_STEP = re.compile(
    rf"(?P<a>{_NUMBER}) ?(?P<op>[-+*/]) ?(?P<b>{_NUMBER}) ?= ?(?P<result>{_NUMBER}) "
    rf"?\(left: ?(?P<left>{_NUMBER}(?:[ ,]+{_NUMBER})*)\)"
)
_NUMBERS = re.compile(r"(?:[Nn]umbers|[Ii]nput|[Uu]se):? *((?:[0-9]{1,7}(?:, *and +|,? +and +|, *| +)?){2,12})")
_TARGET = re.compile(r"\b(?:make|obtain|reach|get|equals?) +(-?[0-9]{1,7})\b")
