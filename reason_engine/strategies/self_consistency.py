"""Self-consistency: sample many reasoning paths, keep the answer that most of them reach.

Wang et al. 2022, arXiv:2203.11171, section 2: argmax over a of the number of paths whose parsed answer equals a.
`adaptive` follows Aggarwal et al. 2023, arXiv:2305.11860. Departures: paths come in waves rather than one by one (one
engine request a wave), and a wave's rest is aborted once the vote cannot change.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies._votes import next_wave, settled
from reason_engine.types import Answer, Path, Problem


@strategies.register("self-consistency")
class SelfConsistency(Strategy):
    """A vote over n paths; all in one engine request unless `adaptive`."""

    summary: ClassVar[str] = "A vote over many paths"
    paper: ClassVar[str] = "arXiv:2203.11171"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to sample")
    adaptive: bool = Field(False, description="draw in waves and stop when the vote is settled")
    confidence: float = Field(
        0.8, gt=0.5, lt=1, description="adaptive: certainty of the lead that settles the vote"
    )

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, then vote; waves of both if adaptive."""
        paths: list[Path] = []
        heat, answer, decided = self.heat(ctx), Answer(), False
        while len(paths) < self.n and not decided:
            left = self.n - len(paths)
            size = next_wave(_counts(paths), left, self.confidence) if self.adaptive else left

            def closed(new: list[Path], before: tuple[Path, ...] = tuple(paths)) -> bool:
                seen = [*before, *new]
                # Inside a wave only certainty counts: the first to finish are the shortest, not a fair sample.
                return settled(_counts(seen), self.n - len(seen), inf)

            wave = await ctx.sample(
                ctx.worded("steps"),
                n=size,
                temperature=heat,
                final=True,
                until=closed if self.adaptive else None,
            )
            paths += wave
            answer = await self._count(ctx, paths)
            if len(wave) < size:
                break
            decided = self.adaptive and self._decided(answer, paths)
        return replace(answer, decided=decided)

    async def _count(self, ctx: Context, paths: list[Path]) -> Answer:
        votes = await ctx.votes([path for path in paths if path.finished])
        ctx.note(votes=[[vote.answer, vote.count] for vote in votes])
        if not votes:
            return Answer()
        share = votes[0].count / len(paths)
        path = await ctx.voter([path for path in paths if path.finished], votes[0].answer)
        return ctx.propose(Answer(path, votes[0].answer, share, votes), votes[0].count)

    def _decided(self, answer: Answer, paths: list[Path]) -> bool:
        counts = [vote.count for vote in answer.votes]
        return len(paths) < self.n and settled(counts, self.n - len(paths), self.confidence)


def _counts(paths: list[Path]) -> list[int]:
    """Votes by answer text, most first; equal answers written differently are joined only after the wave."""
    counts: dict[str, int] = {}
    for path in paths:
        if path.finished and path.answer is not None:
            counts[path.answer] = counts.get(path.answer, 0) + 1
    return sorted(counts.values(), reverse=True)
