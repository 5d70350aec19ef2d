"""Self-consistency: sample many reasoning paths, keep the answer that most of them reach. With the ballot of every
strategy that draws its voters in waves.

Wang et al. 2022, arXiv:2203.11171, section 2: argmax over a of the number of paths whose parsed answer equals a.
`adaptive` is Adaptive-Consistency, Aggarwal et al. 2023, arXiv:2305.11860, section 3: with v1 votes for the leader and
v2 for the runner-up, the posterior that the leader is the more frequent answer is

    P(p > 1/2),  p ~ Beta(v1 + 1, v2 + 1)  =  2^-(v1+v2+1) * sum_{j<=v1} C(v1 + v2 + 1, j)

The wave that follows is as large as the fewest further votes that could settle the question.
Departures: paths come in waves rather than one by one (one engine request a wave), and a wave's rest is aborted once
the vote cannot change. Weighted votes are scaled so that a voter weighs 1 on average; the leader is rounded down and
the runner-up up, so that the certainty of a lead is never overstated. No voter to come is taken to outweigh the
heaviest so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, comb, floor, inf
from typing import Annotated, ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Answer, Draw, Path, Problem, Vote

Certainty = Annotated[
    float | None,
    Field(gt=0.5, lt=1, description="adaptive: certainty of the lead that settles the vote; unset: the profile's"),
]
SMALLEST_WAVE = 3
ROUNDING = 1e-9


@strategies.register("self-consistency")
class SelfConsistency(Strategy):
    """A vote over n paths; all in one engine request unless `adaptive`."""

    summary: ClassVar[str] = "A vote over many paths"
    paper: ClassVar[str] = "arXiv:2203.11171"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to sample")
    adaptive: bool = Field(False, description="draw in waves and stop when the vote is settled")
    confidence: Certainty = None

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, then vote; waves of both if adaptive."""
        certain = (self.confidence or ctx.profile.certain) if self.adaptive else None
        ballot = Ballot(self.n, certain, lambda path: float(path.finished))
        temperature, answer = self.sampling_temperature(ctx), Answer()
        while (size := ballot.wave) and not ballot.decided:
            draw = Draw(size, temperature=temperature, until=ballot.until, final=True, after=len(ballot.paths))
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            await ballot.count(ctx, wave)
            answer = await ballot.answer(ctx)
            if len(wave) < size:
                break
        return replace(answer, decided=ballot.decided)


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


async def count_votes(ctx: Context, paths: Sequence[Path], weights: Sequence[float] | None = None) -> tuple[Vote, ...]:
    """Equal answers counted together, heaviest first (ties: first given). A weight is 1 unless given; no answer is no
    vote."""
    voters = [(path.answer, weights[i] if weights else 1.0) for i, path in enumerate(paths) if path.answer is not None]
    names = await ctx.merge_equal([answer for answer, _ in voters])
    counted: dict[str, Vote] = {}
    for name, (_, weight) in zip(names, voters, strict=True):
        vote = counted.get(name, Vote(name, 0))
        counted[name] = Vote(name, vote.count + 1, vote.weight + weight)
    return tuple(sorted(counted.values(), key=lambda vote: -vote.weight))


async def best_voter(
    ctx: Context, paths: Sequence[Path], answer: str, rank: Callable[[Path], float] = lambda path: 0.0
) -> Path:
    """The path of highest rank, then the most certain one, then the first, that gave this answer."""
    named = [path for path in paths if path.answer is not None]
    names = await ctx.merge_equal([path.answer or "" for path in named])
    same = [path for path, name in zip(named, names, strict=True) if answer in (name, path.answer)]
    return max(same, key=lambda path: (rank(path), path.mean_logprob))


@dataclass
class Ballot:
    """The votes of up to `n` paths. `confidence` settles it early; None: all are drawn. A path that weighs 0 has no
    vote."""

    n: int
    confidence: float | None
    weigh: Callable[[Path], float]
    paths: list[Path] = field(default_factory=list[Path])
    votes: tuple[Vote, ...] = ()

    @property
    def wave(self) -> int:
        """How many paths to draw next."""
        left = self.n - len(self.paths)
        if self.confidence is None or not left:
            return left
        counts, _ = _tally(self.paths, self.weigh)
        return next_wave(counts, left, self.confidence)

    @property
    def decided(self) -> bool:
        """Whether the vote is settled with paths left to draw."""
        left = self.n - len(self.paths)
        if self.confidence is None or not left or not self.votes:
            return False
        mean = sum(vote.weight for vote in self.votes) / sum(vote.count for vote in self.votes)
        heaviest = max(map(self.weigh, self.paths))
        counts = [vote.weight / mean for vote in self.votes]
        return settled(counts, left * heaviest / mean, self.confidence)

    @property
    def until(self) -> Callable[[list[Path]], bool] | None:
        """Ends a wave once the paths that are open cannot change the vote.

        Inside a wave certainty does not count: the first to finish are the shortest, not a fair sample.
        """
        if self.confidence is None:
            return None
        before = tuple(self.paths)

        def closed(new: list[Path]) -> bool:
            seen = [*before, *new]
            counts, heaviest = _tally(seen, self.weigh)
            return settled(counts, (self.n - len(seen)) * heaviest, inf)

        return closed

    async def count(self, ctx: Context, wave: Sequence[Path]) -> tuple[Vote, ...]:
        """The votes with this wave in, heaviest first; they stand in the trace."""
        self.paths += wave
        voters = [path for path in self.paths if self.weigh(path) > 0]
        self.votes = await count_votes(ctx, voters, [self.weigh(path) for path in voters])
        ctx.note(votes=[[vote.answer, vote.count] for vote in self.votes])
        if any(vote.weight != vote.count for vote in self.votes):
            ctx.note(weights=[[vote.answer, round(vote.weight, 4)] for vote in self.votes])
        return self.votes

    async def answer(self, ctx: Context) -> Answer:
        """The heaviest answer by its heaviest, then most certain path, proposed as the best so far. Its share of all
        paths is the confidence, of all weight where weights differ."""
        if not self.votes:
            return Answer()
        first = self.votes[0]
        voters = [path for path in self.paths if self.weigh(path) > 0]
        path = await best_voter(ctx, voters, first.answer, self.weigh)
        weighted = any(vote.weight != vote.count for vote in self.votes)
        whole = sum(vote.weight for vote in self.votes) if weighted else len(self.paths)
        return ctx.propose(Answer(path, first.answer, first.weight / whole, self.votes), first.weight)


def _tally(paths: Sequence[Path], weigh: Callable[[Path], float]) -> tuple[list[float], float]:
    """Votes by answer text, most first, and the heaviest voter, in units of the mean voter; equal answers written
    differently are joined only after a wave."""
    cast = [(path.answer, weigh(path)) for path in paths if path.answer is not None]
    cast = [(answer, weight) for answer, weight in cast if weight > 0]
    mean = sum(weight for _, weight in cast) / len(cast) if cast else 1.0
    counts: dict[str, float] = {}
    for answer, weight in cast:
        counts[answer] = counts.get(answer, 0.0) + weight / mean
    return sorted(counts.values(), reverse=True), max((weight for _, weight in cast), default=mean) / mean
