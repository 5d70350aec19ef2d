"""Mistakes: a trace that errs and puts it right, or a given solution that is checked line by line.

Erring and correcting (the wrong line itself is not learned):

    12 + 25 = 47
    Wrong: 12 + 25 = 37
    37 - 7 = 30
    Answer: 30

Checking works each line out again before it judges it: a row holds the line's number, its left side, the result that
the model finds itself and the one that was given, so that the verdict compares two numbers that stand side by side. The
first row that is wrong ends with that word, and the right lines follow:

    … How many apples does Anna have now?
    Proposed solution:
    12 + 25 = 37
    37 - 7 = 40
    Answer: 40
    Check this solution.
    ->
    1: 12 + 25 = 37; 37
    2: 37 - 7 = 30; 40 wrong
    37 - 7 = 30
    Answer: 30

A left side that the problem does not ask for is refused before it is worked out (`2: 37 + 7 wrong`), and so is an
answer that comes too soon (`2: Answer wrong`). After rows without fault: `Every line is right.` and the answer's line.

Thinking again after an answer, when something outside the model writes `Wait.` (only what follows it is learned):

    12 + 25 = 37
    37 - 7 = 40
    Answer: 40
    Wait.
    1: 12 + 25 = 37; 37
    2: 37 - 7 = 30; 40 wrong
    37 - 7 = 30
    Answer: 30
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data._lines import Line, line
from reason_engine.data.formats import STEPS, Example
from reason_engine.data.words import WordProblem, word_problem

CHECK = "{question}\nProposed solution:\n{solution}\nCheck this solution."
SOUND = "Every line is right."
LEFT_OUT = 0.12
"""Share of mistakes that leave a line out."""


@families.register("repair")
class Repair(BaseModel):
    """`check`, `wait`: shares of given solutions and of thinking again; `sound`: share of those that are right."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    check: float = Field(0.6, ge=0, le=1)
    wait: float = Field(0.3, ge=0, le=1)
    sound: float = Field(0.3, ge=0, le=1)
    steps: tuple[int, int] = (1, 5)
    digits: tuple[int, int] = (1, 3)

    def example(self, rng: random.Random) -> Example:
        problem = word_problem(rng, rng.randint(*self.steps), rng.randint(*self.digits))
        kind = rng.random()
        if kind >= self.check + self.wait:
            return _corrected(rng, problem)
        given, verdict = _verdict(rng, problem, rng.random() < self.sound)
        if kind < self.check:
            question = CHECK.format(question=problem.question, solution=given)
            return Example(question, verdict, "repair")
        before = f"{given}\nWait.\n"
        return Example(
            f"{problem.question}\n{STEPS}", f"{before}{verdict}", "repair", skip=((0, len(before)),)
        )


def slip(rng: random.Random, right: Line) -> Line:
    """The same equation with a wrong, plausible result: a digit off or a place off."""
    while True:
        value = right.value + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 10, 10, 100))
        if value >= 0:
            return Line(right.left, right.op, right.right, value)


def spoiled(rng: random.Random, problem: WordProblem) -> tuple[int, list[Line], str]:
    """The place of a mistake, the lines with it, each later one taking up what it changes, and what its row says."""
    place, kind = rng.randrange(len(problem.lines)), rng.random()
    right = problem.lines[place]
    if kind < LEFT_OUT and len(problem.lines) > 1:
        given = [*problem.lines[:place], *_carried(problem.lines[place + 1 :], {right.value: right.left})]
        if place == len(given):
            return place, given, "Answer"
        if given[place].value != right.value:
            return place, given, _left(given[place])
    wrong = _mistake(rng, problem, place) if kind < 0.4 else slip(rng, right)
    given = [
        *problem.lines[:place],
        wrong,
        *_carried(problem.lines[place + 1 :], {right.value: wrong.value}),
    ]
    same = _left(wrong) == _left(right)
    return place, given, f"{right}; {wrong.value}" if same else _left(wrong)


def _corrected(rng: random.Random, problem: WordProblem) -> Example:
    place = rng.randrange(len(problem.lines))
    before = "".join(f"{entry}\n" for entry in problem.lines[:place])
    wrong = str(slip(rng, problem.lines[place]))
    after = "\n".join([*map(str, problem.lines[place:]), f"Answer: {problem.answer}"])
    skip = ((len(before), len(before) + len(wrong) + 1),)
    return Example(f"{problem.question}\n{STEPS}", f"{before}{wrong}\nWrong: {after}", "repair", skip=skip)


def _verdict(rng: random.Random, problem: WordProblem, sound: bool) -> tuple[str, str]:
    """A solution, right or spoiled in one line, and what a check of it says."""
    rows = [f"{place}: {entry}; {entry.value}" for place, entry in enumerate(problem.lines, 1)]
    if sound:
        return problem.rationale, "\n".join([*rows, SOUND, f"Answer: {problem.answer}"])
    place, given, fault = spoiled(rng, problem)
    solution = "\n".join([*map(str, given), f"Answer: {given[-1].value}"])
    rest = [*map(str, problem.lines[place:]), f"Answer: {problem.answer}"]
    return solution, "\n".join([*rows[:place], f"{place + 1}: {fault} wrong", *rest])


def _mistake(rng: random.Random, problem: WordProblem, place: int) -> Line:
    """A wrong sign, or a number that belongs elsewhere."""
    right = problem.lines[place]
    op, other = right.op, right.right
    if rng.random() < 0.5:
        op = rng.choice([sign for sign in "+-" if sign != op])
    else:
        near = [entry.left for entry in problem.lines] + [entry.right for entry in problem.lines]
        other = rng.choice(sorted({*near, right.right + 1, right.right + 10} - {right.right}))
    if (op == "-" and right.left < other) or (op == "/" and (not other or right.left % other)):
        return slip(rng, right)
    wrong = line(right.left, op, other)
    return wrong if wrong.value != right.value else slip(rng, right)


def _carried(lines: Sequence[Line], swap: dict[int, int]) -> list[Line]:
    """The lines with values changed where they take one up that was."""
    new: list[Line] = []
    swap = dict(swap)
    for entry in lines:
        left, right = swap.get(entry.left, entry.left), swap.get(entry.right, entry.right)
        legal = not (entry.op == "/" and (right == 0 or left % right)) and not (
            entry.op == "-" and left < right
        )
        new.append(line(left, entry.op, right) if legal else entry)
        swap[entry.value] = new[-1].value
    return new


def _left(entry: Line) -> str:
    return f"{entry.left} {entry.op} {entry.right}"
