"""Game of 24 and Countdown puzzles: drawing them, asking them, and writing one of their solutions."""

from __future__ import annotations

import random
from fractions import Fraction

from reason_engine.data._numbers import Expression, Number, State, games, moves, reachable, usable

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
