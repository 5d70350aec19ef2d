"""Word problems of 1 to 8 steps, answered at once, by terse equations, or by the letter of one of four options.

    Anna has 12 apples. She buys 25 more. She gives 7 to Ben. How many apples does Anna have now?
    Think step by step.
    ->
    25 - 7 = 18
    12 + 18 = 30
    Answer: 30

The difficulty is `steps` (the fewest equations that solve it) and `digits` (of the numbers in the text). All words at
the bottom were written for this project.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from reason_engine.data import STEPS, Example, Options, families
from reason_engine.evals import tasks
from reason_engine.evals.datasets import Range
from reason_engine.recipes import GeneratedTask
from reason_engine.recipes.arithmetic import Equation, equation, work_out, written
from reason_engine.types import Problem

LIMIT = 9999
LETTERS = "ABCD"


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question, one true rationale, and the answer. `chain`: one line an operation, in the story's order."""

    question: str
    lines: tuple[Equation, ...]
    answer: int
    chain: tuple[Equation, ...] = ()

    @property
    def rationale(self) -> str:
        """The lines and the answer's line, as the model is taught to write them."""
        return written(self.lines, self.answer)


@families.register("words")
class Words(Options):
    """`steps`: lowest and highest number of steps. `digits`: the same for the digits of a number in the text."""

    rationale: bool = True
    steps: tuple[int, int] = (1, 8)
    digits: tuple[int, int] = (1, 3)
    aside: float = Field(0.1, ge=0, le=1)

    def example(self, rng: random.Random) -> Example:
        """Word problems of 1 to 8 steps: answered at once or by terse equations, one of the valid ways at random."""
        problem = word_problem(rng, rng.randint(*self.steps), rng.randint(*self.digits), self.aside)
        if self.rationale:
            return Example(f"{problem.question}\n{STEPS}", problem.rationale, "words")
        return Example(problem.question, f"Answer: {problem.answer}", "words")


@families.register("choice")
class Choice(Options):
    """`rationale`: share answered by steps, the rest gives the letter at once; `through`: option by option."""

    rationale: float = Field(0.7, ge=0, le=1)
    through: bool = False
    steps: tuple[int, int] = (1, 4)
    digits: tuple[int, int] = (1, 2)

    def example(self, rng: random.Random) -> Example:
        """Multiple choice: a word problem with four options; the answer is the letter.

        With `through` the options follow in their order up to the one that equals the last result (`A) 31`, `B) 30`,
        `Answer: B`): a letter stands before its number, and small models do not learn to look back for it.
        """
        problem = word_problem(rng, rng.randint(*self.steps), rng.randint(*self.digits))
        question, letter = multiple_choice(rng, problem)
        if rng.random() >= self.rationale:
            return Example(question, f"Answer: {letter}", "choice")
        options = question.splitlines()[-len(LETTERS) :]
        place = LETTERS.index(letter)
        seen = options[0 if self.through else place : place + 1]
        return Example(f"{question}\n{STEPS}", written([*problem.lines, *seen], letter), "choice")


@tasks.register("word-problems")
class WordProblems(GeneratedTask):
    """`steps`: equations that a problem needs. `digits`: of the numbers in its text. Both drawn evenly per problem."""

    seeds: ClassVar[str] = "words"

    steps: Range = Field((1, 8))
    digits: Range = Field((1, 3))

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One problem."""
        meta = {"steps": rng.randint(*self.steps), "digits": rng.randint(*self.digits)}
        problem, meta = word_problem(rng, **meta), {"index": index, **meta}
        return Problem(problem.question, reference=str(problem.answer), task="word-problems", meta=meta)


def word_problem(rng: random.Random, steps: int, digits: int = 2, aside: float = 0.1) -> WordProblem:
    """A fresh problem whose shortest rationale has exactly `steps` equations. Raises ValueError on steps < 1."""
    if steps < 1 or digits < 1:
        raise ValueError("steps and digits must be at least 1")
    (name, they), (other, _) = rng.sample(PEOPLE, 2)
    words = {"name": name, "they": they, "other": other, "things": rng.choice(THINGS)}
    value = start = _number(rng, digits)
    story = [rng.choice(START).format(n=start, **words)]
    ending = "together" if steps >= 3 and rng.random() < 0.25 else ""
    if not ending and steps >= 2 and rng.random() < 0.15:
        ending = "more"
    left = steps - {"together": 2, "more": 1, "": 0}[ending]
    actions, chain = list[tuple[str, int, int]](), list[Equation]()
    while left:
        kind, a, b = _action(rng, value, left, digits)
        left -= 2 if b else 1
        chain += [*([equation(b, "*", a)] if b else []), equation(value, kind, a * (b or 1))]
        value = chain[-1].value
        actions.append((kind, a, b))
        story.append(_say(rng, kind, a, b, words))
    lines = _rationale(rng, start, actions)
    if ending == "more" and value > start:
        story.append(rng.choice(MORE_THAN_BEFORE).format(**words))
        lines += work_out(rng, value, "-", start)
        chain.append(equation(value, "-", start))
    elif ending:
        op, a = _comparison(rng, value, digits)
        story.append(rng.choice(COMPARE[op]).format(a=a, **words))
        lines += work_out(rng, value, op, a)
        chain.append(equation(value, op, a))
        if ending == "together":
            story.append(rng.choice(TOGETHER).format(**words))
            lines += work_out(rng, lines[-1].value, "+", value)
            chain.append(equation(chain[-1].value, "+", value))
        else:
            story.append(f"How many {words['things']} does {other} have?")
    else:
        story.append(rng.choice(END).format(**words))
    if rng.random() < aside:
        story.insert(rng.randrange(1, len(story)), rng.choice(ASIDE).format(a=_number(rng, 2), **words))
    return WordProblem(" ".join(story), tuple(lines), lines[-1].value, tuple(chain))


def multiple_choice(rng: random.Random, problem: WordProblem) -> tuple[str, str]:
    """The problem with four different options, and the letter of the right one."""
    right = problem.answer
    near = {right + d for d in (-10, -2, -1, 1, 2, 10)} | {entry.value for entry in problem.lines}
    wrong = rng.sample(sorted(n for n in near if n != right and n >= 0), 3)
    options = rng.sample([right, *wrong], 4)
    rows = map("{}) {}".format, LETTERS, options)
    return "\n".join([problem.question, *rows]), LETTERS[options.index(right)]


def _number(rng: random.Random, digits: int) -> int:
    return rng.randint(2 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)


def _action(rng: random.Random, value: int, left: int, digits: int) -> tuple[str, int, int]:
    """A legal next action as (operator, number, how many of it or 0); it costs one step, with a count two."""
    while True:
        kind = rng.choices("+-*/", (5, 5, 2, 2))[0]
        if kind in "+-":
            count = rng.randint(2, 9) if left >= 2 and rng.random() < 0.3 else 0
            a = _number(rng, rng.randint(1, digits) if not count else max(1, digits - 1))
            if 0 < equation(value, kind, a * (count or 1)).value <= LIMIT:
                return kind, a, count
        elif kind == "*" and value < 10**digits:
            a = rng.randint(2, 9)
            if value * a <= LIMIT:
                return kind, a, 0
        elif kind == "/" and (divisors := [a for a in range(2, 10) if value % a == 0 and value > a]):
            return kind, rng.choice(divisors), 0


def _comparison(rng: random.Random, value: int, digits: int) -> tuple[str, int]:
    a, op = _number(rng, digits), rng.choice("+-*")
    if op == "*":
        return op, rng.randint(2, 5)
    return ("+", a) if a >= value else (op, a)


def _say(rng: random.Random, kind: str, a: int, count: int, words: dict[str, str]) -> str:
    forms = {"+": PACKS, "-": PACKS_LOST} if count else {"+": GAIN, "-": LOSE, "*": TIMES, "/": SHARE}
    return rng.choice(forms[kind]).format(a=a, b=count, **words)


def _rationale(rng: random.Random, value: int, actions: list[tuple[str, int, int]]) -> list[Equation]:
    """Equations for a chain of actions; two neighbouring plain sums or differences are sometimes taken together."""
    lines, place = list[Equation](), 0
    while place < len(actions):
        kind, a, count = actions[place]
        following = actions[place + 1] if place + 1 < len(actions) else None
        if count:
            lines += work_out(rng, count, "*", a)
            a *= count
        elif following and kind == "+" and following[0] in "+-" and not following[2] and rng.random() < 0.25:
            op, b, _ = following
            if op == "+" or a > b:
                lines += work_out(rng, a, op, b)
                a, place = lines[-1].value, place + 1
        lines += work_out(rng, value, kind, a)
        value, place = lines[-1].value, place + 1
    return lines


PEOPLE = (
    ("Anna", "She"), ("Ben", "He"), ("Clara", "She"), ("David", "He"), ("Ella", "She"), ("Farid", "He"),
    ("Grace", "She"), ("Hugo", "He"), ("Ines", "She"), ("Jonas", "He"), ("Kira", "She"), ("Liam", "He"),
    ("Mia", "She"), ("Noah", "He"), ("Olga", "She"), ("Pedro", "He"), ("Rosa", "She"), ("Samir", "He"),
    ("Tara", "She"), ("Victor", "He"), ("Wanda", "She"), ("Yusuf", "He"),
)  # fmt: skip
THINGS = (
    "apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "pencils", "shells", "stamps",
    "stickers", "stones", "tickets", "toys", "oranges", "beads", "buttons", "nuts", "photos", "plums", "balls",
)  # fmt: skip
START = (
    "{name} has {n} {things}.", "{name} starts with {n} {things}.", "{name} owns {n} {things}.",
    "At first {name} has {n} {things}.", "There are {n} {things} in {name}'s box.",
)  # fmt: skip
GAIN = (
    "{they} buys {a} more.", "{they} finds {a} more {things}.", "{they} gets {a} more from {other}.",
    "{other} gives {name} {a} {things}.", "Then {name} wins {a} {things}.", "{they} collects another {a}.",
)  # fmt: skip
LOSE = (
    "{they} gives {a} to {other}.", "{they} loses {a} of them.", "{they} sells {a} {things}.",
    "Then {name} uses {a} {things}.", "{other} takes {a} of them away.", "{they} drops {a} and they are gone.",
)  # fmt: skip
PACKS = (
    "{they} buys {b} boxes with {a} {things} each.", "{they} gets {b} bags of {a} {things}.",
    "{other} brings {b} packs of {a} {things} for {name}.",
)  # fmt: skip
PACKS_LOST = (
    "{they} gives {a} {things} to each of {b} friends.", "{they} sells {b} bags of {a} {things}.",
)  # fmt: skip
TIMES = (
    "Then the number of {things} grows to {a} times as many.", "After a year {name} has {a} times as many.",
    "{they} works until there are {a} times as many {things}.",
)  # fmt: skip
SHARE = (
    "{they} shares them equally among {a} people and keeps one share.",
    "{they} puts them into {a} equal piles and keeps only one pile.",
)  # fmt: skip
END = (
    "How many {things} does {name} have now?", "How many {things} are left with {name}?",
    "How many {things} does {name} have in the end?",
)  # fmt: skip
MORE_THAN_BEFORE = ("How many more {things} does {name} have than at the start?",)
COMPARE = {
    "+": ("{other} has {a} more {things} than that.", "{other} now has {a} {things} more than {name}."),
    "-": ("{other} has {a} fewer {things} than that.", "{other} now has {a} {things} less than {name}."),
    "*": ("{other} has {a} times as many {things} as {name} now.",),
}
TOGETHER = ("How many {things} do they have together?", "How many {things} do {name} and {other} have in all?")
ASIDE = (
    "{other} is {a} years old.", "It is {a} degrees outside.", "The walk home takes {a} minutes.",
    "{name} lives at number {a}.",
)  # fmt: skip
