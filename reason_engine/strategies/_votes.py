"""The arithmetic of votes that stop early.

Adaptive-Consistency, Aggarwal et al. 2023, arXiv:2305.11860, section 3: with v1 votes for the leader and v2 for the
runner-up, the posterior that the leader is the more frequent answer is

    P(p > 1/2),  p ~ Beta(v1 + 1, v2 + 1)  =  2^-(v1+v2+1) * sum_{j<=v1} C(v1 + v2 + 1, j)

The wave that follows is as large as the fewest further votes that could settle the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

SMALLEST_WAVE = 3


def lead_probability(first: int, second: int) -> float:
    """Posterior probability that the leading answer is the more frequent of the two."""
    total = first + second + 1
    return sum(comb(total, j) for j in range(first + 1)) / 2**total


def settled(counts: Sequence[int], remaining: int, confidence: float) -> bool:
    """Whether more votes are not worth drawing: they cannot change the winner, or the lead is certain enough.

    `counts` are the votes of each answer, most first.
    """
    first, second, *_ = [*counts, 0, 0]
    if not first:
        return remaining <= 0
    return first - second > remaining or lead_probability(first, second) >= confidence


def next_wave(counts: Sequence[int], remaining: int, confidence: float) -> int:
    """How many paths to draw next: the fewest that could settle the vote if all went to the leader, but no fewer than
    SMALLEST_WAVE, since every further wave costs the time of a path."""
    first, second, *_ = [*counts, 0, 0]
    for size in range(1, remaining):
        if settled((first + size, second), remaining - size, confidence):
            return min(remaining, max(size, SMALLEST_WAVE))
    return remaining
