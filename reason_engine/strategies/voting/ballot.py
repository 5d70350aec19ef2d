"""The ballot of a strategy that draws its voters in waves, and whose answer leads.

Wang et al. 2022, arXiv:2203.11171, section 2: argmax over a of the number of paths whose parsed answer equals a. Who
votes, and what a vote weighs, stands in `votes.py`. The confidence is the leader's share of all paths drawn, also of
those that abstained; a path that votes counts by its weight in units of the mean voter.
Questions without a short value have no votes: their answer is the most typical text (`free_text.py`).
Departures: paths may come in waves, and a wave's rest is aborted once the vote cannot change (`settle.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from reason_engine.runtime.context import Context
from reason_engine.strategies.voting.equal import SameAnswers
from reason_engine.strategies.voting.free_text import most_typical
from reason_engine.strategies.voting.settle import Rule, next_wave, settled
from reason_engine.strategies.voting.votes import Cast, Weigh, evenly, tallied, voters
from reason_engine.types import Answer, Path, Vote


@dataclass
class Ballot:
    """The votes of up to `n` paths. `rule` settles it early; None: all are drawn. `weigh` is the strategy's own
    weight of a path; one that weighs 0 has no vote. `ask`: free text is chosen by the model's own view."""

    n: int
    rule: Rule | None = None
    weigh: Weigh = evenly
    same: SameAnswers = field(default_factory=SameAnswers)
    ask: bool = False
    paths: list[Path] = field(default_factory=list[Path])
    cast: list[Cast] = field(default_factory=list[Cast])
    votes: tuple[Vote, ...] = ()

    @property
    def wave(self) -> int:
        """How many paths to draw next."""
        left = self.n - len(self.paths)
        if self.rule is None or not left:
            return left
        return next_wave([vote.weight / self._mean for vote in self.votes], left, self.rule)

    @property
    def decided(self) -> bool:
        """Whether the vote is settled with paths left to draw."""
        left = self.n - len(self.paths)
        if self.rule is None or not left or not self.votes:
            return False
        heaviest = max(one.weight for one in self.cast) / self._mean
        return settled([vote.weight / self._mean for vote in self.votes], left * heaviest, self.rule)

    def until(self, ctx: Context) -> Callable[[list[Path]], bool] | None:
        """Ends a wave once the paths that are open cannot change the vote.

        Inside a wave certainty does not count: the first to finish are the shortest, not a fair sample. Answers are
        told apart by their text there; those that are equal in other words are joined after the wave. While it is open
        whether weak readings vote, so is the vote.
        """
        if self.rule is None:
            return None
        before = tuple(self.paths)

        def over(new: list[Path]) -> bool:
            seen = [*before, *new]
            strengths = [path.strength for path in seen]
            if "weak" in strengths and 2 * strengths.count("strong") < self.n:
                return False
            cast = [Cast(path, path.answer or "", weight) for path, weight in voters(ctx, seen, self.weigh)]
            mean = sum(one.weight for one in cast) / len(cast) if cast else 1.0
            heaviest = max((one.weight for one in cast), default=mean) / mean
            return settled([v.weight / mean for v in tallied(cast)], (self.n - len(seen)) * heaviest, Rule(inf))

        return over

    async def count(self, ctx: Context, wave: Sequence[Path]) -> tuple[Vote, ...]:
        """The votes with this wave in, heaviest first; they stand in the trace. A first wave may show that another kind
        of answer is wanted, and is read again then."""
        self.paths += wave if self.paths else ctx.second_look(wave)
        found = voters(ctx, self.paths, self.weigh)
        names = await self.same.names(ctx, [path.answer or "" for path, _ in found])
        self.cast = [
            Cast(path, name, weight) for (path, weight), name in zip(found, names, strict=True) if name is not None
        ]
        self.votes = tallied(self.cast)
        ctx.note(votes=[[vote.answer, vote.count] for vote in self.votes], abstained=len(self.paths) - len(self.cast))
        if left_out := ctx.run.left_out:
            ctx.note(time=f"no time to begin {left_out} more paths")
        if any(vote.weight != vote.count for vote in self.votes):
            ctx.note(weights=[[vote.answer, round(vote.weight, 4)] for vote in self.votes])
        return self.votes

    async def answer(self, ctx: Context) -> Answer:
        """The heaviest answer by its heaviest, then most certain path, proposed as the best so far, with its share of
        all paths as the confidence. Where most paths say something without a short value, the most typical text."""
        if texts := self._texts(ctx):
            path = await most_typical(ctx, texts, [self.weigh(path) for path in texts], ask=self.ask)
            return ctx.propose(Answer(path, path.answer), 0.0) if path else Answer()
        if not self.votes:
            return Answer()
        first = self.votes[0]
        path = max(
            (one for one in self.cast if one.answer == first.answer),
            key=lambda one: (one.weight, one.path.mean_logprob),
        ).path
        return ctx.propose(Answer(path, first.answer, self._share(first.answer), self.votes), first.weight)

    @property
    def _mean(self) -> float:
        return sum(one.weight for one in self.cast) / len(self.cast) if self.cast else 1.0

    def _share(self, answer: str) -> float:
        """Of all paths; each voter by its own weight in units of the mean one, forced answers by their probability."""
        own = [self.weigh(one.path) for one in self.cast]
        mean = sum(own) / len(own)
        won = sum(
            weight / mean * one.path.weight for weight, one in zip(own, self.cast, strict=True) if one.answer == answer
        )
        return won / len(self.paths)

    def _texts(self, ctx: Context) -> list[Path]:
        """The paths whose texts are to be compared as they stand: where free text is wanted, or a tool might be called,
        and more paths end without a value than with one."""
        if ctx.spec.kind not in ("free", "tool") or ctx.checker or ctx.problem.structured:
            return []
        plain = [path for path in self.paths if path.finished and path.answer is None and self.weigh(path) > 0]
        if len(plain) <= len(self.cast):
            return []
        return plain if ctx.spec.kind == "tool" else [path for path in self.paths if path.finished]
