"""Deep think with confidence: a vote in which weak paths are stopped while they run and strong ones weigh more.

DeepConf, Fu et al. 2025, arXiv:2508.15260, section 3.3 (online). A few warm-up paths run to their end; the percentile
of their lowest group confidence (`_confidence.py`) that lets `keep` of them through is the threshold. A path that falls
below it is aborted at once. The rest vote, each with its lowest group confidence; drawing stops when the vote is
certain.
Departures: the window is a quarter of a typical warm-up path instead of 2,048 tokens, which short paths never fill;
paths come in waves, one engine request each; the vote is certain by the posterior of its lead (`_votes.py`) rather than
by the leader's share of all weight, which two early paths can push to 1. Where the engine cannot stop a single path, it
runs on and has no vote.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies._confidence import Gate, gate_of
from reason_engine.strategies._votes import CERTAIN, Ballot, Certainty
from reason_engine.types import Answer, Path, Problem


@strategies.register("confidence")
class Confidence(Strategy):
    """A confidence-weighted vote over up to n paths; weak ones end early."""

    summary: ClassVar[str] = "A weighted vote; paths of low confidence are stopped while they run"
    paper: ClassVar[str] = "arXiv:2508.15260"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to begin, the warm-up included")
    warmup: int = Field(3, ge=1, le=64, description="paths that run to their end and set the threshold")
    keep: float = Field(
        1.0, gt=0, le=1, description="share of the warm-up paths that the threshold lets through"
    )
    window: int | None = Field(
        None, ge=1, le=65_536, description="tokens of a group; default: a quarter of a typical path"
    )
    k: int = Field(5, ge=2, le=20, description="likeliest tokens that a token's confidence is taken over")
    adaptive: bool = Field(True, description="draw in waves and stop when the vote is settled")
    confidence: Certainty = CERTAIN

    @property
    def width(self) -> int:
        return self.n

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"logprobs"})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Warm up, set the gate, then draw and vote until it is settled."""
        gate: Gate | None = None
        weights = dict[int, float]()

        def weigh(path: Path) -> float:
            if gate and path.node not in weights:
                weights[path.node] = gate.weight(path)
            return weights.get(path.node, 0.0)

        ballot = Ballot(self.n, self.confidence if self.adaptive else None, weigh)
        heat, answer = self.heat(ctx), Answer()
        while (size := ballot.wave) and not ballot.decided:
            size = size if gate else min(self.warmup, self.n)
            wave = await ctx.sample(
                ctx.worded("steps"),
                n=size,
                temperature=heat,
                logprobs=self.k,
                final=True,
                until=ballot.until if gate else None,
                drop=gate.drop() if gate else None,
                after=len(ballot.paths),
            )
            gate = gate or gate_of([path for path in wave if path.finished], self.keep, self.k, self.window)
            for path in wave:
                ctx.judge(path.node, gate.confidence(path), by="confidence")
            await ballot.count(ctx, wave)
            ctx.note(
                window=gate.window, threshold=round(gate.threshold, 4), kept=sum(map(bool, weights.values()))
            )
            answer = await ballot.answer(ctx)
            if len(wave) < size:
                break
        return replace(answer, decided=ballot.decided)
