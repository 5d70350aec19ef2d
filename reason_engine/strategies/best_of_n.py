"""Best of n: sample n whole answers, keep the one a verifier likes best.

Cobbe et al. 2021, arXiv:2110.14168, section 4 (verifier re-ranking). Without a verifier the model's own certainty
ranks: the mean log-probability of the path. Ties go to the more certain path.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Answer, Problem


@strategies.register("best-of-n")
class BestOfN(Strategy):
    """The path with the highest score of n; all in one engine request."""

    summary: ClassVar[str] = "The best of n answers by a verifier or by the model's certainty"
    paper: ClassVar[str] = "arXiv:2110.14168"

    n: int = Field(16, ge=1, le=256, description="answers to sample")

    @property
    def width(self) -> int:
        return self.n

    @property
    def judge(self) -> tuple[str, dict[str, object]] | None:
        return super().judge or ("certainty", {})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, score, take the best."""
        paths = await ctx.sample(ctx.worded("steps"), n=self.n, temperature=self.heat(ctx), final=True)
        finished = [path for path in paths if path.finished]
        if not finished:
            return Answer()
        scored = [
            (score.value, path)
            for score, path in zip(await ctx.score(finished), finished, strict=True)
            if score is not None
        ]
        best = max(scored, key=lambda pair: (pair[0], pair[1].mean_logprob))
        votes = await ctx.votes(finished)
        confidence = best[0] if 0 <= best[0] <= 1 else None
        return ctx.propose(Answer(best[1], best[1].answer, confidence, votes), best[0])
