"""Values states by playouts: each is taken to its end in one go, and the end is judged, by the checker where the task
has one, else by the verifier. The ends count as answers of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reason_engine.runtime.context import Context
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought, apart


class Playouts:
    """The playouts of one search; `ends` has every end that was reached, with its value."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.ends: list[Thought] = []
        self.furthest = Thought()
        """The deepest open thought valued so far, the best of those."""

    @property
    def fault(self) -> str:
        """Ends are what they are."""
        return ""

    async def of(self, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought | None]:
        """The thoughts with the values of their ends: 0 where a playout reached none, None where none was drawn."""
        rows = (
            len(thoughts) if self._steps.checked else self._steps.pace.rows(len(thoughts), self._steps.left(*thoughts))
        )
        timely = {thought.key for thought in apart([one for one in thoughts if not one.done], rows)}

        async def play(thought: Thought) -> Thought | None:
            if thought.done or thought.key not in timely:
                return thought if thought.done else None
            return await self._steps.finish(ctx, thought, rows)

        played = await ctx.gather_within_budget(play, thoughts)
        values = await self._judged(ctx, [end for end in played if end and end.done])
        found: list[Thought | None] = []
        for thought, end in zip(thoughts, played, strict=True):
            value = values.get(end.path.node, 0.0) if end and end.path else 0.0
            found.append(None if end is None else self._seen(ctx, thought, end, value))
        return found

    async def _judged(self, ctx: Context, ends: Sequence[Thought]) -> dict[int, float]:
        """Value by node of the trace."""
        paths = [end.path for end in ends if end.path]
        if self._steps.checked:
            return {path.node: float(self._steps.rules.solved([end])) for path, end in zip(paths, ends, strict=True)}
        scores = await ctx.score(paths)
        return {path.node: score.value for path, score in zip(paths, scores, strict=True) if score}

    def _seen(self, ctx: Context, thought: Thought, end: Thought, value: float) -> Thought:
        if end.done:
            ended = replace(end, value=value)
            ctx.propose(ended.answer, value)
            if not thought.done:
                self.ends.append(ended)
        if thought.path:
            ctx.record_score(thought.path.node, value, by="rollout")
        thought = replace(thought, value=value)
        if not thought.done and (thought.depth, value) >= (self.furthest.depth, self.furthest.value):
            self.furthest = thought
        return thought
