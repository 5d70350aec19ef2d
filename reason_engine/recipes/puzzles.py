"""Game of 24 and Countdown: by steps, each line naming what is left, or the finished expression at once.

Use the numbers 4 5 6 10 and + - * / to make 24.
Think step by step.
->
10 - 4 = 6 (left: 5 6 6)
6 * 5 = 30 (left: 6 30)
30 - 6 = 24 (left: 24)
Answer: (10 - 4) * 5 - 6 = 24

Value queries, the judgement that a tree search asks for: `Can 4 4 10 make 24?` -> `yes` or `no`, exact.

States are what lines from a puzzle lead to, so that they look like those of a search; labels are balanced by drawing
the label first. States of four numbers are those that training may use.

Game of 24 and Countdown puzzles: drawing them, asking them, and writing one of their solutions.
"""

from __future__ import annotations

import random
from fractions import Fraction

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data.formats.examples import STEPS, Example
from reason_engine.data.numbers import Expression, Number, State, games, moves, reachable, usable


@families.register("countdown")
class Countdown(BaseModel):
    """Share `game` of the puzzles has four numbers and the target 24, the rest three or four and another target."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: bool = True
    game: float = Field(0.6, ge=0, le=1)
    highest: int = Field(13, ge=4, le=25)
    top: int = Field(120, ge=10, le=1000)

    def example(self, rng: random.Random) -> Example:
        if rng.random() < self.game:
            state, target = game(rng, self.highest)
        else:
            state, target = countdown(rng, (3, 4, 4), self.highest, self.top)
        question = ask(rng, state, target)
        lines, expression = solution(rng, state, target)
        if not self.steps:
            return Example(question, f"Answer: {expression}", "countdown")
        return Example(f"{question}\n{STEPS}", "\n".join([*lines, f"Answer: {expression}"]), "countdown")


SMALL = 30  # half of the lines keep to results this small, as those do that a model proposes


@families.register("value")
class Value(BaseModel):
    """`sizes`: relative share of states by how many numbers they hold. `game`: share with the target 24."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    game: float = Field(0.75, ge=0, le=1)
    sizes: dict[int, float] = {1: 1, 2: 8, 3: 24, 4: 4}
    highest: int = Field(13, ge=4, le=25)
    weight: float = Field(8.0, gt=0)

    def example(self, rng: random.Random) -> Example:
        wanted = rng.random() < 0.5
        size = rng.choices(list(self.sizes), list(self.sizes.values()))[0]
        while True:
            state, target = self._draw(rng, size, wanted)
            if (target in reachable(state)) == wanted:
                break
        text = show(state if rng.random() < 0.8 else tuple(rng.sample(state, size)))
        return Example(f"Can {text} make {target}?", "yes" if wanted else "no", "value", self.weight)

    def _draw(self, rng: random.Random, size: int, wanted: bool) -> tuple[State, Number]:
        if rng.random() < self.game:
            if size == 4 and not wanted:
                state: State = (1,)
                while not usable(state) or len(state) < 4:
                    state = tuple(sorted(rng.randint(1, self.highest) for _ in range(4)))
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


def _near(rng: random.Random, state: State, target: int) -> int:
    reach = reachable(state)
    near = [n for n in range(max(1, target - 30), target + 31) if n not in reach]
    return rng.choice(near) if near else target


WORDINGS = (
    "Use the numbers {numbers} and + - * / to make {target}.",
    "Use numbers and basic arithmetic operations (+ - * /) to obtain {target}. Input: {numbers}",
    "Countdown: use {numbers} to reach {target}.",
)


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
        ways = [move for move in moves(state) if move[4] == end]
        op, left, right, value, state = rng.choice(ways)
        first, second = _take(rng, pool, left), _take(rng, pool, right)
        pool.append(first.join(op, second, value))
        lines.append(f"{left} {op} {right} = {value} (left: {show(state)})")
    return lines, f"{pool[0].text} = {target}"


def show(state: State) -> str:
    """The numbers of a state, ascending, with spaces between."""
    return " ".join(str(number) for number in state)


def _take(rng: random.Random, pool: list[Expression], value: Number) -> Expression:
    found = rng.choice([index for index, one in enumerate(pool) if one.value == value])
    return pool.pop(found)
