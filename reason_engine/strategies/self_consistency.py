"""Self-consistency: sample many reasoning paths, keep the answer that most of them reach.

Wang et al. 2022, arXiv:2203.11171, section 2; the ballot is `voting/ballot.py`. `adaptive` is Adaptive-Consistency,
Aggarwal et al. 2023, arXiv:2305.11860 (`voting/settle.py`). Where the answer is free text, nothing can be counted: the
text that is most like the others is taken, or with `free_text: usc` the one that the model finds to agree with most
(universal self-consistency, Chen et al. 2023, arXiv:2311.17311). Programs vote by what they do, where they may be run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.equal import SameAnswers
from reason_engine.strategies.voting.in_time import in_time
from reason_engine.strategies.voting.settle import Certainty, Rule, Worth
from reason_engine.types import Answer, Draw, Problem


@strategies.register("self-consistency")
class SelfConsistency(Strategy):
    """A vote over n paths; all in one engine request unless `adaptive`."""

    summary: ClassVar[str] = "A vote over many paths"
    paper: ClassVar[str] = "arXiv:2203.11171"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to sample")
    adaptive: bool = Field(False, description="draw in waves and stop when the vote is settled")
    confidence: Certainty = None
    worth: Worth = None
    free_text: Literal["medoid", "usc"] = Field(
        "medoid", description="free text: the one most like the others, or the one that the model finds most consistent"
    )
    ask_same: bool = Field(False, description="short answers in other words: ask the model whether they are the same")

    @property
    def width(self) -> int:
        return self.n

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"choose"} if self.ask_same or self.free_text == "usc" else ())

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, then vote; waves of both if adaptive."""
        rule = Rule.of(ctx.profile, self.confidence, self.worth) if self.adaptive else None
        ballot = Ballot(self.n, rule, same=SameAnswers(ask=self.ask_same), ask=self.free_text == "usc")
        temperature, answer = self.sampling_temperature(ctx), Answer()
        while not ballot.decided and (size := in_time(ctx, ballot.wave, ballot.paths)):
            draw = Draw(size, temperature=temperature, until=ballot.until(ctx), final=True, after=len(ballot.paths))
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            await ballot.count(ctx, wave)
            answer = await ballot.answer(ctx)
            if len(wave) < size:
                break
        return replace(answer, decided=ballot.decided)
