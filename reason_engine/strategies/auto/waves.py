"""The waves of `auto`'s vote: how many paths come next, when they are enough, and who decides where they are not.

The vote is settled (certainty c: `Profile.certain`) once the leader is the more frequent answer with a posterior of c
(`voting/settle.py`), once all paths that may still come change nothing with that probability, or once none of them is
worth drawing, where the profile says what that is (`Profile.worth`). With v1 votes for the leader, v2 for the runner-up
and r paths to come, all of them for one of the two,

    P(v1 + r - x > v2 + x),   x ~ BetaBinomial(r, v2 + 1, v1 + 1)

which is the posterior above carried to the end of this vote (Laplace's rule of succession for every next path). No wave
is begun that tokens, samples or seconds (`voting/in_time.py`) cannot pay for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, comb, floor

from reason_engine.errors import VerifierError
from reason_engine.runtime.context import Context
from reason_engine.strategies.best_of_n import score_weight
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.in_time import in_time
from reason_engine.strategies.voting.settle import ROUNDING, Rule, lead_probability
from reason_engine.types import Answer, Draw, Stopped

FIRST, FIRST_THOUGHTS = 3, 2
"""Paths of the first wave; of a model that thinks."""
JUDGED = 16
"""A vote that is still split after so many paths is judged by a verifier, where there is one."""


@dataclass
class Waves:
    """A vote in waves: at most `most` paths, `at_once` in one wave."""

    ctx: Context
    most: int
    at_once: int
    temperature: float
    thorough: bool
    ballot: Ballot = field(init=False)

    def __post_init__(self) -> None:
        self.ballot = Ballot(self.most, Rule.of(self.ctx.profile, None))

    async def answer(self) -> Answer:
        """Draw and count until it is settled, split for good, or not paid for any more."""
        ctx, ballot, answer = self.ctx, self.ballot, Answer()
        while (size := self._affordable(self._wanted())) > 0:
            drawn = len(ballot.paths)
            draw = Draw(size, temperature=self.temperature, until=ballot.until(ctx), final=True, after=drawn)
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            await ballot.count(ctx, wave)
            answer = await ballot.answer(ctx)
            first, second = self._lead
            left = self.most - len(ballot.paths)
            ctx.note(posterior=round(lead_probability(first, second), 4), holds=round(holds(first, second, left), 4))
            if not wave or self._split:
                break
        if self._split:
            answer = await self._judged(answer)
        if answer.path is None and ballot.paths:
            answer = replace(answer, path=max(ballot.paths, key=lambda path: path.finished))
        return replace(answer, decided=len(ballot.paths) < self.most and (self._agreed or self._settled))

    @property
    def _first(self) -> int:
        return min(FIRST_THOUGHTS if self.ctx.thinks else FIRST, self.most)

    @property
    def _lead(self) -> tuple[float, float]:
        """The votes of the leader and of the runner-up."""
        first, second, *_ = [*(vote.weight for vote in self.ballot.votes), 0.0, 0.0]
        return first, second

    @property
    def _settled(self) -> bool:
        """Whether the lead is certain enough: of being one, or of lasting."""
        left = self.most - len(self.ballot.paths)
        if not (left and self.ballot.votes):
            return False
        return self.ballot.decided or holds(*self._lead, left) >= self.ctx.profile.certain

    @property
    def _agreed(self) -> bool:
        """Whether all paths say the same, where an answer was asked for."""
        paths, votes = self.ballot.paths, self.ballot.votes
        equal = len(paths) >= self._first and len(votes) == 1 and votes[0].count == len(paths)
        return equal and all(path.strength == "strong" for path in paths)

    @property
    def _split(self) -> bool:
        """Whether a verifier is to decide: there is one, and that many paths have not."""
        enough = len(self.ballot.paths) >= min(JUDGED, self.most)
        return enough and self.ctx.verifier is not None and len(self.ballot.votes) > 1 and not self._settled

    def _wanted(self) -> int:
        """How many paths to draw next; 0: none are worth it."""
        ballot = self.ballot
        if not ballot.paths:
            return self._first
        if not ballot.votes or self._settled or self.ctx.spec.kind == "free":  # the second look may have said so
            return 0
        if self._agreed:
            return min(int(self.thorough), self.most - len(ballot.paths))
        return ballot.wave

    def _affordable(self, wanted: int) -> int:
        """As many of these as the budget is expected to pay for; at least one first path is tried."""
        budget, most = self.ctx.budget, dict[Stopped, float]()
        if budget.free is not None:
            most["budget-tokens"] = budget.free / min(budget.expected(), self.ctx.max_tokens or budget.expected())
        if budget.limits.samples is not None:
            most["budget-samples"] = budget.limits.samples - budget.samples
        size = min(wanted, self.at_once, *map(int, most.values()))
        if wanted and not self.ballot.paths:
            return max(1, size)
        if wanted and size < 1:
            budget.note(min(most, key=lambda reason: most[reason]))
        return in_time(self.ctx, size, self.ballot.paths)

    async def _judged(self, answer: Answer) -> Answer:
        """The weighted vote of the same paths; the plain one where the verifier fails."""
        ctx, paths = self.ctx, [path for path in self.ballot.paths if path.finished and path.answer is not None]
        try:
            judged = await ctx.score(paths)
        except VerifierError as error:
            ctx.note(verifier=str(error))
            return answer
        scores = {path.node: score.value for path, score in zip(paths, judged, strict=True) if score}
        ballot = Ballot(len(paths), None, lambda path: score_weight(scores, path))
        await ballot.count(ctx, paths)
        return await ballot.answer(ctx) if ballot.votes else answer


def holds(first: float, second: float, remaining: int) -> float:
    """The probability that a lead outlives the paths to come; at least that for fractions."""
    leader, other = floor(first + ROUNDING), ceil(second - ROUNDING)
    ways = [comb(other + x, x) * comb(leader + remaining - x, remaining - x) for x in range(remaining + 1)]
    kept = sum(way for x, way in enumerate(ways) if leader + remaining - x > other + x)
    return kept / sum(ways)
