"""Self-consistency: sample many reasoning paths, keep the answer that most of them reach.

Wang et al. 2022, arXiv:2203.11171, section 2: argmax over a of the number of paths whose parsed answer equals a.
`adaptive` follows Aggarwal et al. 2023, arXiv:2305.11860. Departures: paths come in waves rather than one by one (one
engine request a wave), and a wave's rest is aborted once the vote cannot change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.voting import CERTAIN, Ballot, Certainty
from reason_engine.types import Answer, Draw, Problem


@strategies.register("self-consistency")
class SelfConsistency(Strategy):
    """A vote over n paths; all in one engine request unless `adaptive`."""

    summary: ClassVar[str] = "A vote over many paths"
    paper: ClassVar[str] = "arXiv:2203.11171"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to sample")
    adaptive: bool = Field(False, description="draw in waves and stop when the vote is settled")
    confidence: Certainty = CERTAIN

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, then vote; waves of both if adaptive."""
        ballot = Ballot(self.n, self.confidence if self.adaptive else None, lambda path: float(path.finished))
        temperature, answer = self.sampling_temperature(ctx), Answer()
        while (size := ballot.wave) and not ballot.decided:
            draw = Draw(size, temperature=temperature, until=ballot.until, final=True, after=len(ballot.paths))
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            await ballot.count(ctx, wave)
            answer = await ballot.answer(ctx)
            if len(wave) < size:
                break
        return replace(answer, decided=ballot.decided)
