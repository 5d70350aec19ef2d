"""How many paths of a vote's next wave can come to their ends in the time that is left.

A wave is begun only if it fits, at the speed that its width would have and with the lengths that this question's paths
have had (`runtime/forecast.py`), with the counting and judging that the last one took, and with a reserve: what asking
for answers takes, and SHARE of all seconds. A narrower one is drawn where that fits; a wider one costs little more a
step, so what fits is drawn in one. A vote that ends so is no cut: it is the vote of what there is.
"""

from __future__ import annotations

from collections.abc import Sequence

from reason_engine.runtime.context import Context
from reason_engine.runtime.draw_clock import asking_seconds
from reason_engine.runtime.forecast import likely_longest
from reason_engine.types import Path

SHARE = 0.05
"""Of the seconds of a run, those that no wave is planned to use."""


def in_time(ctx: Context, wanted: int, drawn: Sequence[Path]) -> int:
    """As many of these further paths as fit beside those that were drawn; 0, noted in the trace, where none does. Of a
    first wave nothing is known."""
    left, most, forecast = ctx.budget.seconds_left, ctx.budget.limits.seconds, ctx.run.forecast
    if not drawn or wanted < 1 or left is None or most is None:
        return wanted
    lengths = [path.tokens for path in drawn if path.finished] or [path.tokens for path in drawn]
    counting = 0.0 if forecast.ended is None else ctx.budget.seconds - forecast.ended
    for n in range(wanted, 0, -1):
        if (drawing := forecast.seconds(n, lengths)) is None:
            return wanted
        asking = asking_seconds(most, drawing / likely_longest(lengths, n))
        if drawing + counting * max(1.0, n / max(1, forecast.paths)) + asking + SHARE * most <= left:
            if n < wanted:
                ctx.note(time=f"time for {n} of {wanted} more paths")
            return n
    ctx.note(time="no time for another wave")
    return 0
