"""Mistakes: a trace that errs and puts it right, or a given solution that is checked.

    erring and correcting    a given solution                         its check               with `rows`
    12 + 25 = 47             … How many apples does Anna have now?    Line 2 is wrong.        1: 12 + 25 = 37; 37
    Wrong: 12 + 25 = 37      Proposed solution:                       37 - 7 = 30             2: 37 - 7 = 30; 40 wrong
    37 - 7 = 30              12 + 25 = 37                             Answer: 30              37 - 7 = 30
    Answer: 30               37 - 7 = 40                                                      Answer: 30
                             Answer: 40
                             Check this solution.

The wrong line itself is not learned. A sound solution is answered `Every line is right.` and its answer line.

With `rows` a check works each line out again before it judges it: a row holds the line's number, its left side, the
result that the model finds itself and the one that was given, so that the verdict compares two numbers that stand side
by side. The first wrong row ends with that word, and the right lines follow. A left side that the problem does not ask
for is refused before it is worked out (`2: 37 + 7 wrong`), and so is an answer that comes too soon (`2: Answer wrong`).

Thinking again after an answer, when something outside the model writes `Wait.`: `Wait. Line 2 is wrong.` and so on.
Only what follows `Wait.` is learned; with `rows` it begins on a line of its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from reason_engine.data import STEPS, Example, Options, families
from reason_engine.recipes.arithmetic import Equation, equation, written
from reason_engine.recipes.words import WordProblem, word_problem

CHECK, SOUND = "{question}\nProposed solution:\n{solution}\nCheck this solution.", "Every line is right."
LEFT_OUT = 0.12
"""Share of mistakes that leave a line out."""


@families.register("repair")
class Repair(Options):
    """`check`, `wait`: shares of given solutions and of thinking again; `sound`: share of those that are right; `rows`:
    a check goes row by row, and some mistakes leave a line out."""

    check: float = Field(0.4, ge=0, le=1)
    wait: float = Field(0.3, ge=0, le=1)
    sound: float = Field(0.4, ge=0, le=1)
    rows: bool = False
    steps: tuple[int, int] = (1, 5)
    digits: tuple[int, int] = (1, 3)

    def example(self, rng: random.Random) -> Example:
        """Mistakes: a trace that errs and puts it right, or a given solution that is checked."""
        problem = word_problem(rng, rng.randint(*self.steps), rng.randint(*self.digits))
        kind = rng.random()
        if kind >= self.check + self.wait:
            return _corrected(rng, problem)
        given, verdict = _verdict(rng, problem, rng.random() < self.sound, self.rows)
        if kind < self.check:
            return Example(CHECK.format(question=problem.question, solution=given), verdict, "repair")
        before, gap = f"{given}\nWait.", "\n" if self.rows else " "
        skip = ((0, len(before) + len(gap) * self.rows),)
        return Example(f"{problem.question}\n{STEPS}", f"{before}{gap}{verdict}", "repair", skip=skip)


def slip(rng: random.Random, right: Equation) -> Equation:
    """The same equation with a wrong, plausible result: a digit off or a place off."""
    while (value := right.value + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 10, 10, 100))) < 0:
        pass
    return replace(right, value=value)


def spoiled(rng: random.Random, problem: WordProblem, left_out: float = 0.0) -> tuple[int, list[Equation]]:
    """The place of a mistake, and the lines with it, each later one taking up what it changes. `left_out`: share of
    mistakes that leave a line out, the last one too."""
    place = rng.randrange(len(problem.lines))
    right, before, after = problem.lines[place], problem.lines[:place], problem.lines[place + 1 :]
    if left_out and len(problem.lines) > 1 and rng.random() < left_out:
        given = [*before, *_carried(after, {right.value: right.left})]
        if place == len(given) or given[place].value != right.value:
            return place, given
    wrong = _mistake(rng, problem, place)
    return place, [*before, wrong, *_carried(after, {right.value: wrong.value})]


def _corrected(rng: random.Random, problem: WordProblem) -> Example:
    place = rng.randrange(len(problem.lines))
    before = "".join(f"{entry}\n" for entry in problem.lines[:place])
    wrong = f"{slip(rng, problem.lines[place])}\n"
    text = f"{before}{wrong}Wrong: {written(problem.lines[place:], problem.answer)}"
    skip = ((len(before), len(before) + len(wrong)),)
    return Example(f"{problem.question}\n{STEPS}", text, "repair", skip=skip)


def _verdict(rng: random.Random, problem: WordProblem, sound: bool, by_rows: bool) -> tuple[str, str]:
    """A solution, right or spoiled in one line, and what a check of it says."""
    rows = [f"{n}: {entry}; {entry.value}" for n, entry in enumerate(problem.lines, 1)] if by_rows else []
    if sound:
        return problem.rationale, written([*rows, SOUND], problem.answer)
    place, given = spoiled(rng, problem, LEFT_OUT if by_rows else 0.0)
    verdict = [*rows[:place], f"{place + 1}: {_fault(problem, place, given)} wrong"]
    if not by_rows:
        verdict = [f"Line {place + 1} is wrong."]
    return written(given, given[-1].value), written([*verdict, *problem.lines[place:]], problem.answer)


def _fault(problem: WordProblem, place: int, given: Sequence[Equation]) -> str:
    """What the row of a wrong line says before its verdict."""
    if place == len(given):
        return "Answer"
    right, wrong = problem.lines[place], given[place]
    same = replace(wrong, value=right.value) == right
    return f"{right}; {wrong.value}" if same else f"{wrong.left} {wrong.op} {wrong.right}"


def _mistake(rng: random.Random, problem: WordProblem, place: int) -> Equation:
    """A slip of arithmetic, a wrong sign, or a number that belongs elsewhere."""
    right, kind = problem.lines[place], rng.random()
    op, other = right.op, right.right
    if 0.6 <= kind < 0.8:
        op = rng.choice([sign for sign in "+-" if sign != op])
    elif kind >= 0.8:
        near = {number for entry in problem.lines for number in (entry.left, entry.right)}
        other = rng.choice(sorted({*near, right.right + 1, right.right + 10} - {right.right}))
    wrong = equation(right.left, op, other) if _is_whole(right.left, op, other) else right
    return wrong if wrong.value != right.value else slip(rng, right)


def _carried(lines: Sequence[Equation], swap: dict[int, int]) -> list[Equation]:
    """The lines with values changed where they take one up that was."""
    new, swap = list[Equation](), dict(swap)
    for entry in lines:
        left, right = swap.get(entry.left, entry.left), swap.get(entry.right, entry.right)
        new.append(equation(left, entry.op, right) if _is_whole(left, entry.op, right) else entry)
        swap[entry.value] = new[-1].value
    return new


def _is_whole(left: int, op: str, right: int) -> bool:
    """Whether the result is a whole number, and not below zero."""
    return left >= right if op == "-" else op != "/" or (right != 0 and left % right == 0)
