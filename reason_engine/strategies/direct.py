"""One path, asked plainly: what the model says when nobody tells it how to think."""

from __future__ import annotations

from typing import ClassVar

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Answer, Draw, Problem


@strategies.register("direct")
class Direct(Strategy):
    """The chat template's default; a model's own thinking is parsed out."""

    summary: ClassVar[str] = "One answer, asked plainly"
    usual_temperature: ClassVar[float] = 1.0

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Sample once."""
        draw = Draw(temperature=self.sampling_temperature(ctx), final=True, live=True)
        (path,) = await ctx.sample(ctx.format_prompt("direct"), draw)
        return Answer(path, path.answer)
