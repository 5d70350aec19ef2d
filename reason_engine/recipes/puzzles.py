"""Game of 24 and Countdown puzzles, solved by steps or at once; and the judgement whether numbers can make a target.

    Use the numbers 4 5 6 10 and + - * / to make 24.
    Think step by step.
    ->
    10 - 4 = 6 (left: 5 6 6)
    6 * 5 = 30 (left: 6 30)
    30 - 6 = 24 (left: 24)
    Answer: (10 - 4) * 5 - 6 = 24

Each line names what is left. The judgement is the value query of a tree search, `Can 4 4 10 make 24?` -> `yes` or
`no`. Its states are what lines from a puzzle lead to, so that they look like those of a search; labels are balanced by
drawing the label first. States of four numbers are those that training may use.

The task `countdown` draws from the same generator as training, under other seeds: with few sets of small numbers, it
measures reasoning within the family, not generalisation. `game24` holds puzzles that training never sees; the states
of the task `judgement` come from puzzles that neither of the two uses.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from typing import ClassVar

from pydantic import Field, field_validator

from reason_engine.answers import Equality
from reason_engine.data import STEPS, Example, Options, families
from reason_engine.data.numbers import Expression, Number, State, games, moves, reachable, usable
from reason_engine.evals import tasks
from reason_engine.evals.datasets import Range
from reason_engine.recipes import GeneratedTask
from reason_engine.types import Problem
from reason_engine.verifiers.countdown import Countdown as Checker

SMALL = 30
"""Half of the lines of a value query keep to results this small, as those do that a model proposes."""
LARGEST = 60
"""Of the numbers that a line may lead to in a judgement: larger ones are seldom proposed."""
WORDINGS = (
    "Use the numbers {numbers} and + - * / to make {target}.",
    "Use numbers and basic arithmetic operations (+ - * /) to obtain {target}. Input: {numbers}",
    "Countdown: use {numbers} to reach {target}.",
)


@families.register("countdown")
class Countdown(Options):
    """Share `game` of the puzzles has four numbers and the target 24, the rest three or four and another target."""

    steps: bool = True
    game: float = Field(0.6, ge=0, le=1)
    highest: int = Field(13, ge=4, le=25)
    top: int = Field(120, ge=10, le=1000)

    def example(self, rng: random.Random) -> Example:
        """Game of 24 and Countdown: by steps, each line naming what is left, or the finished expression at once."""
        known = rng.random() < self.game
        state, target = game(rng, self.highest) if known else countdown(rng, (3, 4, 4), self.highest, self.top)
        question = ask(rng, state, target)
        lines, expression = solution(rng, state, target)
        if not self.steps:
            return Example(question, f"Answer: {expression}", "countdown")
        return Example(f"{question}\n{STEPS}", "\n".join([*lines, f"Answer: {expression}"]), "countdown")


@families.register("value")
class Value(Options):
    """`sizes`: relative share of states by how many numbers they hold. `game`: share with the target 24."""

    game: float = Field(0.75, ge=0, le=1)
    sizes: dict[int, float] = Field({1: 1, 2: 8, 3: 24, 4: 4})
    highest: int = Field(13, ge=4, le=25)
    weight: float = Field(8.0, gt=0)

    def example(self, rng: random.Random) -> Example:
        """Value queries, the judgement that a tree search asks for: `Can 4 4 10 make 24?` -> `yes` or `no`, exact."""
        wanted = rng.random() < 0.5
        size = rng.choices(list(self.sizes), list(self.sizes.values()))[0]
        state, target = self._draw(rng, size, wanted)
        while (target in reachable(state)) != wanted:
            state, target = self._draw(rng, size, wanted)
        text = show(state if rng.random() < 0.8 else tuple(rng.sample(state, size)))
        return Example(f"Can {text} make {target}?", "yes" if wanted else "no", "value", self.weight)

    def _draw(self, rng: random.Random, size: int, wanted: bool) -> tuple[State, Number]:
        if rng.random() < self.game:
            if size == 4 and not wanted:
                while not usable(state := tuple(sorted(rng.randint(1, self.highest) for _ in range(4)))):
                    pass
                return state, 24
            state, target = game(rng, self.highest)
        else:
            state, target = countdown(rng, (4,), self.highest)
            if size == 4 and not wanted:
                return state, _near(rng, state, target)
        while len(state) > size:
            options = moves(state)
            good = [move for move in options if target in reachable(move[4])] if wanted else options
            plain = [move for move in good if isinstance(move[3], int)] or good or options
            small = [move for move in plain if move[3] <= SMALL] if rng.random() < 0.5 else ()
            state = rng.choice(small or plain)[4]
        return state, target


@tasks.register("countdown")
class CountdownTask(GeneratedTask):
    """`size`: how many numbers. `highest`: the largest number. `top`: the largest target."""

    seeds: ClassVar[str] = "countdown"

    size: Range = Field((3, 4))
    highest: int = Field(13, ge=4, le=25)
    top: int = Field(120, ge=10, le=1000)

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By exact arithmetic."""
        checker = Checker(numbers=problem.meta["numbers"], target=problem.meta["target"])
        return answer is not None and checker.solved(answer)

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One puzzle."""
        sizes = tuple(range(self.size[0], self.size[1] + 1))
        state, target = countdown(rng, sizes, self.highest, self.top)
        meta = {"index": index, "numbers": tuple(int(n) for n in state), "target": target}
        return Problem(ask(rng, state, target), task="countdown", meta=meta)


@tasks.register("judgement")
class Judgement(GeneratedTask):
    """`size`: how many numbers."""

    seeds: ClassVar[str] = "judgement"

    size: Range = Field((2, 3))

    @field_validator("size")
    @classmethod
    def drawn(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] > 3:
            raise ValueError("states hold at most 3 numbers")
        return value

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """By the first `yes` or `no` of the text. Thinking longer does not help there."""
        found = re.search(r"\b(?:yes|no)\b", text.casefold())
        return found is not None and found[0] == problem.reference

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One state; whether it reaches 24 is drawn first."""
        label, size = rng.random() < 0.5, rng.randint(*self.size)
        state = _searched(rng, size)
        while (24 in reachable(state)) != label:
            state = _searched(rng, size)
        question, reference = f"Can {show(state)} make 24?", "yes" if label else "no"
        return Problem(question, reference=reference, task="judgement", meta={"index": index})


def ask(rng: random.Random, numbers: State, target: Number) -> str:
    """The question in one of the wordings, the numbers in a random order."""
    shuffled = [str(number) for number in rng.sample(numbers, len(numbers))]
    wording = rng.choice(WORDINGS[:2] if rng.random() < 0.7 or target == 24 else WORDINGS[2:])
    return wording.format(numbers=" ".join(shuffled), target=target)


def game(rng: random.Random, highest: int = 13) -> tuple[State, int]:
    """Four numbers that training may use and that make 24; every set is as likely as any other."""
    return rng.choice(games(highest)), 24


def countdown(
    rng: random.Random, sizes: tuple[int, ...] = (3, 4), highest: int = 13, top: int = 120
) -> tuple[State, int]:
    """Numbers that training may use, and a target that random whole steps from them reach."""
    while True:
        state: State = tuple(sorted(rng.randint(1, highest) for _ in range(rng.choice(sizes))))
        if not usable(state):
            continue
        end = state
        while len(end) > 1:
            whole = [move[4] for move in moves(end) if isinstance(move[3], int) and 0 < move[3] <= 4 * top]
            end = rng.choice(whole) if whole else (0,)
        target = max(end)  # the one that is left
        if 1 < target <= top:
            return state, int(target)


def solution(rng: random.Random, state: State, target: Number) -> tuple[list[str], str]:
    """One exact solution at random: its lines, and the finished expression. The target must be reachable."""
    pool = [Expression(number) for number in state]
    lines: list[str] = []
    while len(state) > 1:
        after = {move[4] for move in moves(state) if target in reachable(move[4])}
        plain = [end for end in after if not any(isinstance(number, Fraction) for number in end)]
        end = rng.choice(sorted(plain or after))
        op, left, right, value, state = rng.choice([move for move in moves(state) if move[4] == end])
        first, second = _take(rng, pool, left), _take(rng, pool, right)
        pool.append(first.join(op, second, value))
        lines.append(f"{left} {op} {right} = {value} (left: {show(state)})")
    return lines, f"{pool[0].text} = {target}"


def show(state: State) -> str:
    """The numbers of a state, ascending, with spaces between."""
    return " ".join(str(number) for number in state)


def _take(rng: random.Random, pool: list[Expression], value: Number) -> Expression:
    return pool.pop(rng.choice([index for index, one in enumerate(pool) if one.value == value]))


def _near(rng: random.Random, state: State, target: int) -> int:
    reach = reachable(state)
    near = [n for n in range(max(1, target - 30), target + 31) if n not in reach]
    return rng.choice(near) if near else target


def _searched(rng: random.Random, size: int) -> State:
    """What some lines from a puzzle lead to, as a search meets it."""
    state = rng.choice(games(13, development=True))
    while len(state) > size:
        state = rng.choice([after for _, _, _, value, after in moves(state) if value <= LARGEST])
    return state
