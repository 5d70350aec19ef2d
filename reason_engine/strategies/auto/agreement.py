"""`auto` without a calibration: a few paths first, and more only while they disagree.

Adaptive-Consistency (Aggarwal et al. 2023, arXiv:2305.11860, section 3) with a first wave: nothing that was measured on
other models tells how hard a question is for this one, but agreement does.

    free text, tools, JSON, code that nobody may run, effort below medium     one path
    anything with a value      three paths by steps in one request (two of a model that thinks), then
        all equal, all read where an answer was asked for    stop; from effort `high` on, one by one up to the posterior
        no path has a value                                  the question is an open one: one of its texts
        split                                                waves until the posterior of the lead is certain enough
                                                             (`Profile.certain`) or the budget is spent
        split after 16 paths, and a verifier is named        its weighted vote over the same paths

Departures: equal first paths settle it at a posterior of 0.94 (three) or 0.88 (two). The probability of a whole text
is no criterion, and no search is begun: both need what only a calibration or a checker knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reason_engine.errors import RequestError, VerifierError
from reason_engine.runtime.context import Context
from reason_engine.runtime.drawn import PathCache
from reason_engine.strategies import strategies
from reason_engine.strategies.best_of_n import score_weight
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.settle import lead_probability
from reason_engine.types import Answer, Draw, Path, Problem

FIRST, FIRST_THOUGHTS = 3, 2
"""Paths of the first wave; of a model that thinks."""
JUDGED = 16
"""A vote that is still split after so many paths is judged by a verifier, where there is one."""
PATHS = {"none": 1, "minimal": 1, "low": 1, "medium": 4, "high": 16, "xhigh": 64, "max": 64}
"""Most paths by effort."""


async def by_agreement(
    problem: Problem, ctx: Context, common: Mapping[str, Any], effort: str | None, at_once: int
) -> Answer:
    """One path where agreement says nothing or is not paid for, else a vote. `common`: what the request says for
    whatever strategy is chosen; `at_once`: most paths of one wave."""
    most = at_once if effort is None else PATHS[effort]
    if name := single(ctx, effort, most):
        strategy = strategies.get(name).model_validate(common)
        ctx.note(plan=[name])
        async with ctx.nested(f"1 {name}", strategy, PathCache[Path](), live=True) as here:
            return await strategy.run(problem, here)
    judge = None if effort == "medium" else usual_judge(ctx, common)
    voters = SelfConsistency.model_validate({"verifier": judge, **common, "n": most})
    ctx.note(plan=["vote"])
    async with ctx.nested("1 vote", voters, PathCache[Path]()) as here:
        temperature = voters.sampling_temperature(here)
        return await Agreement(here, most, at_once, temperature, effort in THOROUGH).answer()


def single(ctx: Context, effort: str | None, most: int) -> str | None:
    """The strategy of one path that is all this question gets; None where several paths are worth drawing."""
    kind = ctx.spec.kind
    open_ended = kind in ("free", "tool", "json") or (kind == "code" and ctx.run.powers.code is None)
    if open_ended or effort in ("none", "minimal"):
        return "direct"
    return "chain-of-thought" if most < FIRST_THOUGHTS else None


def usual_judge(ctx: Context, common: Mapping[str, Any]) -> str | None:
    """The first of the profile's verifiers that can judge here, where the request names none."""
    for name in ctx.profile.verifiers if common.get("verifier") is None else ():
        try:
            ctx.admit(SelfConsistency.model_validate({"verifier": name}))
        except RequestError as error:
            ctx.note(left_out=[*ctx.span_state.notes.get("left_out", ()), f"{name}: {error}"])
        else:
            return name
    return None


THOROUGH = frozenset({"high", "xhigh", "max"})
"""Efforts at which equal first paths are not enough."""


@dataclass
class Agreement:
    """A vote in waves: at most `most` paths, `at_once` in one wave."""

    ctx: Context
    most: int
    at_once: int
    temperature: float
    thorough: bool
    ballot: Ballot = field(init=False)

    def __post_init__(self) -> None:
        self.ballot = Ballot(self.most, self.ctx.profile.certain)

    async def answer(self) -> Answer:
        """Draw and count until it is settled, split for good, or not paid for any more."""
        ctx, ballot, answer = self.ctx, self.ballot, Answer()
        while (size := self._affordable(self._wanted())) > 0:
            drawn = len(ballot.paths)
            draw = Draw(size, temperature=self.temperature, until=ballot.until(ctx), final=True, after=drawn)
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            await ballot.count(ctx, wave)
            answer = await ballot.answer(ctx)
            first, second, *_ = [*(vote.weight for vote in ballot.votes), 0.0, 0.0]
            ctx.note(posterior=round(lead_probability(first, second), 4) if first else None)
            if not wave or self._split:
                break
        if self._split:
            answer = await self._judged(answer)
        if answer.path is None and ballot.paths:
            answer = replace(answer, path=max(ballot.paths, key=lambda path: path.finished))
        return replace(answer, decided=len(ballot.paths) < self.most and (self._agreed or ballot.decided))

    @property
    def _first(self) -> int:
        return min(FIRST_THOUGHTS if self.ctx.thinks else FIRST, self.most)

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
        return enough and self.ctx.verifier is not None and len(self.ballot.votes) > 1 and not self.ballot.decided

    def _wanted(self) -> int:
        """How many paths to draw next; 0: none are worth it."""
        ballot = self.ballot
        if not ballot.paths:
            return self._first
        if not ballot.votes or ballot.decided:
            return 0
        if self._agreed:
            return min(int(self.thorough), self.most - len(ballot.paths))
        return ballot.wave

    def _affordable(self, wanted: int) -> int:
        """As many of these as the budget is expected to pay for; at least one first path is tried."""
        budget, sizes = self.ctx.budget, {"budget-samples": float(wanted), "budget-tokens": float(wanted)}
        if budget.free is not None:
            each = min(budget.expected(), self.ctx.max_tokens or budget.expected())
            sizes["budget-tokens"] = budget.free // each
        if budget.limits.samples is not None:
            sizes["budget-samples"] = budget.limits.samples - budget.samples
        size = min(wanted, self.at_once, *map(int, sizes.values()))
        if wanted and not self.ballot.paths:
            return max(1, size)
        if wanted and size < 1:
            budget.note("budget-tokens" if sizes["budget-tokens"] < 1 else "budget-samples")
        return size

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
