"""Which line of a solution is the first wrong one, told by the chain of operations that its problem asks for.

A solution is right as long as it can still be the beginning of a true rationale: each operation at once or in parts,
sums and products in either order, two neighbouring plain sums taken together (as the generator writes them).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from reason_engine.recipes.arithmetic import Equation, equation, work_out

State = tuple[int, tuple[str, ...]]
"""How many operations are begun, and the lines that the last of them still needs."""


def first_wrong(rows: Sequence[str], chain: Sequence[Equation]) -> int | None:
    """The number of the first wrong line of these; None where all are right, the answer's line included."""
    states: set[State] = {(0, ())}
    for number, row in enumerate(rows):
        if row.startswith("Answer: "):
            done = (len(chain), ()) in states and row == f"Answer: {chain[-1].value}"
            return None if done and number == len(rows) - 1 else number
        states = {after for state in states for after in _after(state, row, chain)}
        if not states:
            return number
    return len(rows) - 1


def _after(state: State, row: str, chain: Sequence[Equation]) -> Iterator[State]:
    begun, rest = state
    if rest:
        if rest[0] == row:
            yield begun, rest[1:]
        return
    for lines, count in _continuations(begun, chain):
        if lines[0] == row:
            yield begun + count, lines[1:]


def _continuations(begun: int, chain: Sequence[Equation]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Lines for the next operation, or the next two, and how many operations they are."""
    if begun == len(chain):
        return
    now = chain[begun]
    yield from ((lines, 1) for lines in _forms(now))
    if begun + 1 == len(chain) or now.op != "+" or _is_product(begun, chain):
        return
    following = chain[begun + 1]
    fits = following.left == now.value and (following.op == "+" or now.right > following.right)
    if following.op in "+-" and fits:
        together = equation(now.right, following.op, following.right)
        for first in _forms(together):
            for second in _forms(equation(now.left, "+", together.value)):
                yield (*first, *second), 2


def _forms(one: Equation) -> Iterator[tuple[str, ...]]:
    for left, right in {(one.left, one.right), *([(one.right, one.left)] if one.op in "+*" else [])}:
        for split in (0.0, 1.0):
            yield tuple(map(str, work_out(random.Random(0), left, one.op, right, split)))


def _is_product(place: int, chain: Sequence[Equation]) -> bool:
    """Whether this operation takes the product of the line before it."""
    return place > 0 and chain[place].left != chain[place - 1].value
