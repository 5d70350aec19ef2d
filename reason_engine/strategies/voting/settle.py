"""When a vote is settled, and how many paths to draw next.

Adaptive-Consistency, Aggarwal et al. 2023, arXiv:2305.11860, section 3: with v1 votes for the leader and v2 for the
runner-up, the posterior that the leader is the more frequent answer is

    P(p > 1/2),  p ~ Beta(v1 + 1, v2 + 1)  =  2^-(v1+v2+1) * sum_{j<=v1} C(v1 + v2 + 1, j)

`worth` ends a vote that is not certain of anything, and may never be: drawing goes on only while the paths to come are
expected to raise the leader's share of all votes by that much each. The votes to come are those of a Chinese restaurant
(Aldous 1985): a next path says what was said before in proportion to its votes, or something new as one vote would.
It saves most on a model whose paths scatter, and costs answers on one whose plurality is right where it is no majority
(`docs/results/real-models/votes.md`): so nothing asks for it unless it is named.

The wave that follows is as large as the fewest further votes that could settle the question.
Departures: paths come in waves rather than one by one (one engine request a wave). Weighted votes are scaled so that a
voter weighs 1 on average; the leader is rounded down and the runner-up up, so that the certainty of a lead is never
overstated. No voter to come is taken to outweigh the heaviest so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, comb, floor
from typing import Annotated

from pydantic import Field

from reason_engine.profile import Profile

Certainty = Annotated[
    float | None,
    Field(gt=0.5, lt=1, description="adaptive: certainty of the lead that settles the vote; unset: the profile's"),
]
Worth = Annotated[
    float | None,
    Field(
        gt=0, lt=1,
        description="adaptive: end also when a path is expected to raise the leader's share by less (0.006 halves the "
        "tokens of votes that scatter); unset: the profile's",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """When a vote is settled: at a posterior of its lead of `certain`, or when no path to come is worth drawing."""

    certain: float
    worth: float | None = None

    @classmethod
    def of(cls, profile: Profile, certain: float | None, worth: float | None = None) -> Rule:
        """What a request says, else the profile."""
        return cls(certain or profile.certain, worth or profile.worth)


SMALLEST_WAVE = 3
ROUNDING = 1e-9
AHEAD, RUNS = 64, 400
"""Most paths to come that are looked at, and how often they are imagined."""


def lead_probability(first: float, second: float) -> float:
    """Posterior probability that the leading answer is the more frequent of the two; at least that for fractions."""
    leader, other = floor(first + ROUNDING), ceil(second - ROUNDING)
    total = leader + other + 1
    return sum(comb(total, j) for j in range(leader + 1)) / 2**total


@lru_cache(4096)
def gain(counts: tuple[float, ...], remaining: int) -> float:
    """How much the leader's share is expected to rise by so many more votes, for each of them.

    `counts` are the votes of each answer. Shares are posterior means: votes over all votes and the one of the unseen.
    """
    import numpy as np

    draws, ahead = np.random.default_rng(0), min(remaining, AHEAD)
    votes = np.zeros((RUNS, len(counts) + ahead))
    votes[:, : len(counts)] = counts
    known, rows, whole = np.full(RUNS, len(counts)), np.arange(RUNS), sum(counts) + 1
    for drawn in range(ahead):
        at = (draws.random(RUNS)[:, None] * (whole + drawn) >= votes.cumsum(1)).sum(1)
        new = at >= known
        votes[rows, np.where(new, known, at)] += 1
        known += new
    return float(votes.max(1).mean() / (whole + ahead) - max(counts) / whole) / ahead


def settled(counts: Sequence[float], remaining: float, rule: Rule) -> bool:
    """Whether more votes are not worth drawing: they cannot change the winner, or the rule says so.

    `counts` are the votes of each answer, most first; `remaining` is what all paths to come can weigh.
    """
    first, second, *_ = [*counts, 0, 0]
    if not first:
        return remaining <= 0
    if first - second > remaining or lead_probability(first, second) >= rule.certain:
        return True
    left = round(remaining)
    return rule.worth is not None and left > 0 and gain(tuple(round(one, 3) for one in counts), left) < rule.worth


def next_wave(counts: Sequence[float], remaining: int, rule: Rule) -> int:
    """How many paths to draw next: the fewest that could settle the vote if all went to the leader, but no fewer than
    SMALLEST_WAVE, since every further wave costs the time of a path."""
    first, *others = counts or [0]
    for size in range(1, remaining):
        if settled((first + size, *others), remaining - size, rule):
            return min(remaining, max(size, SMALLEST_WAVE))
    return remaining
