"""Makes one answer of the ends that a search came to.

By `best` it is the thought of highest value, by `vote` the answer whose draws' values sum to most (best-of-n weighted,
Li et al. 2023, arXiv:2206.02336, section 3.2; the final selection of Snell et al. 2024, arXiv:2408.03314, section 5.1).
An end without an answer has no vote, but counts in the confidence, which is the leader's share of all ends; one whose
answer had to be asked for weighs its probability as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.answering import CREDIBLE, forcible
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought, apart
from reason_engine.strategies.search.values import Valuing
from reason_engine.strategies.voting.settle import Rule, settled
from reason_engine.strategies.voting.votes import best_voter, count_votes
from reason_engine.types import Answer, Draw

Choose = Literal["best", "vote"]


async def choose_answer(ctx: Context, steps: Steps, ends: Sequence[Thought], choose: Choose) -> Answer:
    """The answer of these finished thoughts, proposed as the best so far; an empty one where there are none."""
    answered = [end for end in ends if end.path and end.path.answer is not None]
    named = [end for end in answered if end.path and end.path.weight >= CREDIBLE] or answered
    if not named:
        return max(ends, key=lambda end: end.value).answer if ends else Answer()
    best = max(named, key=lambda end: end.value)
    if choose == "best" or steps.rules.solved(named):
        return ctx.propose(best.answer, best.value)
    voters = [(end.path, _weight(end)) for end in named if end.path for _ in range(end.draws)]
    paths, weights = [path for path, _ in voters], [weight for _, weight in voters]
    votes = await count_votes(ctx, paths, weights)
    ctx.note(votes=[[vote.answer, vote.count] for vote in votes])
    ctx.note(weights=[[vote.answer, round(vote.weight, 4)] for vote in votes])
    total = sum(max(0.0, end.value) * end.draws for end in ends)
    first = votes[0]
    path, share = await best_voter(ctx, paths, first.answer), first.weight / total if total else None
    return ctx.propose(Answer(path, first.answer, share, votes), first.weight)


def vote_settled(answer: Answer, remaining: int, rule: Rule) -> bool:
    """Whether so many more answers (none: never) are not worth having, by Adaptive-Consistency's rule: weights count in
    units of the mean voter, and no answer to come is taken to outweigh the mean of the leader's."""
    whole = sum(vote.weight for vote in answer.votes)
    if not whole or not remaining:
        return False
    mean, lead = whole / sum(vote.count for vote in answer.votes), answer.votes[0]
    heaviest = max(1.0, lead.weight / lead.count / mean)
    return settled([vote.weight / mean for vote in answer.votes], remaining * heaviest, rule)


async def finished(
    ctx: Context, steps: Steps, values: Valuing | None, states: Sequence[Thought], n: int
) -> list[Thought]:
    """Up to n ends of these states, as far apart as they are, each in one go, and valued by what values the search; as
    far as the budget goes. States that more samples led to have more of the ends."""
    rows = steps.pace.rows(n, steps.left(*states))
    chosen = apart(states, rows)
    shares = dict.fromkeys(range(len(chosen)), 1)
    for _ in range(rows - len(chosen) if chosen else 0):
        shares[max(shares, key=lambda place: chosen[place].draws / shares[place])] += 1

    async def end(place: int) -> list[Thought]:
        ends = await steps.ends(here, chosen[place], shares[place], rows)
        # What no step led to was valued by nobody: whole paths weigh the same.
        return [replace(one, value=chosen[place].value if chosen[place].steps else 1.0) for one in ends]

    if not chosen:
        return []
    try:
        async with ctx.span("finish") as here:
            found = [one for ends in await here.gather_within_budget(end, list(shares)) for one in ends or ()]
            if values is None or not found or steps.pace.gave_way or not steps.pace.values:
                return found
            try:
                return [one for one in await values.of(here, found) if one]
            except BudgetExhausted:
                return found
    except BudgetExhausted:
        return []


async def final_answer(
    ctx: Context, steps: Steps, furthest: Thought, ends: Sequence[Thought], choose: Choose
) -> Answer:
    """The answer of a search that is over; one without an end takes its furthest thought to one first."""
    found = list(ends)
    if not found:
        if not furthest.text:
            furthest = steps.beginning
        async with ctx.span("finish") as here:
            last = await steps.finish(here, furthest)
        if last is None or not last.done:
            return await _in_requested_form(ctx, steps, Answer(), (last or furthest).text)
        found = [last]
    found = await _read(ctx, steps, found)
    answer = await choose_answer(ctx, steps, found, choose)
    return await _in_requested_form(ctx, steps, answer, answer.path.text if answer.path else "")


async def _in_requested_form(ctx: Context, steps: Steps, answer: Answer, worked: str) -> Answer:
    """The answer in the form that the request asks for, from what was `worked` out: a search goes by steps, which no
    schema fits."""
    if ctx.form is None:
        return answer
    prompt = FORM.replace("{problem}", ctx.problem.question).replace("{steps}", worked.strip())
    async with ctx.span("form") as here:
        draw = Draw(temperature=steps.draws.temperature, stage="finish", final=True)
        (path,) = await here.sample(prompt, draw)
    return replace(answer, path=path, value=path.answer)


async def _read(ctx: Context, steps: Steps, ends: Sequence[Thought]) -> list[Thought]:
    """The ends with their answers: those without one are asked for it, and what they show of the kind of answer that is
    wanted counts."""
    if steps.checked or any(end.path is None for end in ends):
        return list(ends)
    found = await _asked(ctx, steps, ends)
    paths = ctx.second_look([end.path for end in found if end.path])
    return [replace(end, path=path) for end, path in zip(found, paths, strict=True)]


async def _asked(ctx: Context, steps: Steps, ends: Sequence[Thought]) -> list[Thought]:
    mute = [end for end in ends if end.path and end.path.answer is None]
    if not mute or not forcible(ctx.run) or steps.pace.gave_way:
        return list(ends)

    async def ask(end: Thought) -> Thought:
        if end not in mute:
            return end
        told = await steps.finish(here, end)
        return replace(told, value=end.value, draws=end.draws) if told and told.path else end

    try:
        async with ctx.span("ask") as here:
            found = await here.gather_within_budget(ask, ends)
    except BudgetExhausted:
        return list(ends)
    return [new or old for new, old in zip(found, ends, strict=True)]


def _weight(end: Thought) -> float:
    return max(0.0, end.value) * (end.path.weight if end.path else 1.0)


FORM = """{problem}

A worked solution:
{steps}

Give its answer in the form that is asked for, and nothing else."""
