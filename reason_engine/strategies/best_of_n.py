"""Best of n: sample n whole answers and let a verifier choose: the path it likes best, or the answer it likes most.

Cobbe et al. 2021, arXiv:2110.14168, section 4 (re-ranking by a verifier, and its vote among the ranked); the weighted
vote is Li et al. 2023, arXiv:2206.02336, section 3.2:  argmax_a sum_i [answer_i = a] score_i. Without a verifier the
model's own certainty ranks: the mean log-probability of the path. Ties go to the more certain path.
Departures: scores outside [0, 1] weigh by their logistic, 1 / (1 + e^-s); `adaptive` draws in waves and ends once the
vote is settled (`voting/settle.py`), or at a score of 1, which no path can pass.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.in_time import in_time
from reason_engine.strategies.voting.settle import SMALLEST_WAVE, Certainty, Rule, Worth
from reason_engine.strategies.voting.votes import voters
from reason_engine.types import Answer, Draw, Path, Problem


@strategies.register("best-of-n")
class BestOfN(Strategy):
    """The path with the highest score of n, or the answer with the highest sum; one request unless `adaptive`."""

    summary: ClassVar[str] = "The best of n answers by a verifier or by the model's certainty"
    paper: ClassVar[str] = "arXiv:2110.14168"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="answers to sample")
    choose: Literal["best", "vote"] = Field(
        "best", description="the path of the highest score, or the answer with the highest sum of scores"
    )
    adaptive: bool = Field(False, description="draw in waves; stop at a full score, or when the vote is settled")
    confidence: Certainty = None
    worth: Worth = None

    @property
    def width(self) -> int:
        return self.n

    @property
    def judge(self) -> tuple[str, dict[str, object]] | None:
        return super().judge or ("certainty", {})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample, score, choose; waves of these if adaptive."""
        scores = dict[int, float]()
        rule = Rule.of(ctx.profile, self.confidence, self.worth)
        ballot = Ballot(
            self.n,
            rule if self.adaptive and self.choose == "vote" else None,
            lambda path: score_weight(scores, path) if self.choose == "vote" else float(path.node in scores),
        )
        temperature, answer = self.sampling_temperature(ctx), Answer()
        while size := in_time(ctx, self._wave(ballot), ballot.paths):
            draw = Draw(size, temperature=temperature, final=True, after=len(ballot.paths))
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            wave = wave if ballot.paths else ctx.second_look(wave)
            finished = [path for path in wave if path.finished]
            judged = await ctx.score(finished) if finished else []
            scores |= {p.node: s.value for p, s in zip(finished, judged, strict=True) if s is not None}
            await ballot.count(ctx, wave)
            answer = await self._chosen(ctx, ballot, scores)
            if len(wave) < size or self._over(ballot, scores):
                break
        return replace(answer, decided=len(ballot.paths) < self.n and self._over(ballot, scores))

    def _wave(self, ballot: Ballot) -> int:
        return min(SMALLEST_WAVE, ballot.wave) if self.adaptive and self.choose == "best" else ballot.wave

    def _over(self, ballot: Ballot, scores: dict[int, float]) -> bool:
        full = self.adaptive and max(scores.values(), default=0.0) == 1.0
        return ballot.decided if self.choose == "vote" else full

    async def _chosen(self, ctx: Context, ballot: Ballot, scores: dict[int, float]) -> Answer:
        ranked = [path for path in ballot.paths if path.node in scores]
        if not ranked:
            return Answer()
        if self.choose == "vote" and (answer := await ballot.answer(ctx)).path:
            return answer
        # A path that abstains is no answer while another one gives one, however much it is liked.
        ranked = [path for path, _ in voters(ctx, ranked)] or ranked
        # Nor is one whose answer was forced, while one stands beside it that answered by itself.
        ranked = [path for path in ranked if path.strength != "forced"] or ranked
        best = max(ranked, key=lambda path: (scores[path.node], path.mean_logprob))
        value = scores[best.node]
        return ctx.propose(Answer(best, best.answer, value if 0 <= value <= 1 else None, ballot.votes), value)


def score_weight(scores: dict[int, float], path: Path) -> float:
    """What a path's vote weighs: its score, or a logistic of it where not all scores lie in [0, 1]."""
    if path.node not in scores:
        return 0.0
    value = scores[path.node]
    if all(0 <= score <= 1 for score in scores.values()):
        return value
    return 1 / (1 + exp(-max(min(value, 500.0), -500.0)))
