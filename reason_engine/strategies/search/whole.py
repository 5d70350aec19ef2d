"""The vote over whole paths that a search comes down to where its values tell it nothing.

What was drawn is not thrown away: the open states, which no value has chosen between, are taken to their ends, and
further whole paths join them, as many in all as the search would have drawn side by side. Every path weighs the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.choosing import finished
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought


async def vote_instead(
    ctx: Context, steps: Steps, states: Sequence[Thought], ends: Sequence[Thought], *, most: int, width: int
) -> list[Thought]:
    """The ends of a vote of up to `most`, drawn up to `width` at a time within what the budget has left."""
    found = [*ends, *await finished(ctx, steps, None, states, min(width, most))]
    steps.pace.wanted = most
    while (missing := most - sum(end.draws for end in found)) > 0 and not steps.pace.gave_way:
        n = steps.pace.rows(min(missing, width), steps.pace.left(0))
        if found and not steps.pace.fits(n, steps.pace.left(0)):
            break
        try:
            async with ctx.span("whole") as here:
                new = await steps.ends(here, Thought(), n, n)
        except BudgetExhausted:
            break
        found += new
        if not new:
            break
    return [replace(end, value=1.0) for end in found]
