"""When a vote is settled, and how many paths to draw next.

Adaptive-Consistency, Aggarwal et al. 2023, arXiv:2305.11860, section 3: with v1 votes for the leader and v2 for the
runner-up, the posterior that the leader is the more frequent answer is

    P(p > 1/2),  p ~ Beta(v1 + 1, v2 + 1)  =  2^-(v1+v2+1) * sum_{j<=v1} C(v1 + v2 + 1, j)

The wave that follows is as large as the fewest further votes that could settle the question.
Departures: paths come in waves rather than one by one (one engine request a wave). Weighted votes are scaled so that a
voter weighs 1 on average; the leader is rounded down and the runner-up up, so that the certainty of a lead is never
overstated. No voter to come is taken to outweigh the heaviest so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb, floor
from typing import Annotated

from pydantic import Field

Certainty = Annotated[
    float | None,
    Field(gt=0.5, lt=1, description="adaptive: certainty of the lead that settles the vote; unset: the profile's"),
]
SMALLEST_WAVE = 3
ROUNDING = 1e-9


def lead_probability(first: float, second: float) -> float:
    """Posterior probability that the leading answer is the more frequent of the two; at least that for fractions."""
    leader, other = floor(first + ROUNDING), ceil(second - ROUNDING)
    total = leader + other + 1
    return sum(comb(total, j) for j in range(leader + 1)) / 2**total


def settled(counts: Sequence[float], remaining: float, confidence: float) -> bool:
    """Whether more votes are not worth drawing: they cannot change the winner, or the lead is certain enough.

    `counts` are the votes of each answer, most first; `remaining` is what all paths to come can weigh.
    """
    first, second, *_ = [*counts, 0, 0]
    if not first:
        return remaining <= 0
    return first - second > remaining or lead_probability(first, second) >= confidence


def next_wave(counts: Sequence[float], remaining: int, confidence: float) -> int:
    """How many paths to draw next: the fewest that could settle the vote if all went to the leader, but no fewer than
    SMALLEST_WAVE, since every further wave costs the time of a path."""
    first, second, *_ = [*counts, 0, 0]
    for size in range(1, remaining):
        if settled((first + size, second), remaining - size, confidence):
            return min(remaining, max(size, SMALLEST_WAVE))
    return remaining
