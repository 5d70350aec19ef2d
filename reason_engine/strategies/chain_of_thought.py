"""Chain of thought: ask for the steps before the answer.

Wei et al. 2022, arXiv:2201.11903; the zero-shot wording is Kojima et al. 2022, arXiv:2205.11916, section 3.
Departure: one prompt, not a second one that extracts the answer; the profile's answer marker does that.
"""

from __future__ import annotations

from typing import ClassVar

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Answer, Draw, Problem


@strategies.register("chain-of-thought")
class ChainOfThought(Strategy):
    """One path by steps. Adds no prompt to a model that thinks by itself."""

    summary: ClassVar[str] = "One path that writes its steps first"
    paper: ClassVar[str] = "arXiv:2201.11903"

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample once, by steps."""
        draw = Draw(temperature=self.sampling_temperature(ctx), final=True, live=True)
        (path,) = await ctx.sample(ctx.format_prompt("steps"), draw)
        return Answer(path, path.answer)
