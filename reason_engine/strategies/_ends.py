"""Makes one answer of the finished thoughts of a search.

`best`: the thought of highest value. `vote`: the answer whose draws' values sum to most (best-of-n weighted, Li et
al. 2023, arXiv:2206.02336, section 3.2; the final selection of Snell et al. 2024, arXiv:2408.03314, section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from reason_engine.runtime.context import Context
from reason_engine.strategies._steps import Steps
from reason_engine.strategies._tree import Thought
from reason_engine.strategies._votes import settled
from reason_engine.types import Answer

Choose = Literal["best", "vote"]


async def decided(ctx: Context, steps: Steps, ends: Sequence[Thought], choose: Choose) -> Answer:
    """The answer of these finished thoughts, proposed as the best so far; an empty one where there are none."""
    named = [end for end in ends if end.path and end.path.answer is not None]
    if not named:
        return max(ends, key=lambda end: end.value).answer if ends else Answer()
    best = max(named, key=lambda end: end.value)
    if choose == "best" or steps.solved(named):
        return ctx.propose(best.answer, best.value)
    voters = [(end.path, max(0.0, end.value)) for end in named if end.path for _ in range(end.draws)]
    paths, weights = [path for path, _ in voters], [weight for _, weight in voters]
    votes = await ctx.votes(paths, weights)
    ctx.note(votes=[[vote.answer, vote.count, round(vote.weight, 4)] for vote in votes])
    total = sum(weights)
    answer = Answer(
        await ctx.voter(paths, votes[0].answer),
        votes[0].answer,
        votes[0].weight / total if total else None,
        votes,
    )
    return ctx.propose(answer, votes[0].weight)


def settled_by(answer: Answer, remaining: int, confidence: float) -> bool:
    """Whether so many more answers are not worth having, by Adaptive-Consistency's rule: weights count in units of the
    mean voter, and no answer to come is taken to outweigh the mean of the leader's."""
    whole = sum(vote.weight for vote in answer.votes)
    if not whole:
        return False
    mean, lead = whole / sum(vote.count for vote in answer.votes), answer.votes[0]
    heaviest = max(1.0, lead.weight / lead.count / mean)
    return settled([vote.weight / mean for vote in answer.votes], remaining * heaviest, confidence)


async def answered(
    ctx: Context, steps: Steps, furthest: Thought, ends: Sequence[Thought], choose: Choose
) -> Answer:
    """The answer of a search that is over; one without an end takes its furthest thought to one first."""
    found = list(ends)
    if not found:
        async with ctx.span("finish") as here:
            last = await steps.finish(here, furthest)
        if last is None or not last.done:
            return await steps.formed(ctx, Answer(), (last or furthest).text)
        found = [last]
    answer = await decided(ctx, steps, found, choose)
    return await steps.formed(ctx, answer, answer.path.text if answer.path else "")
