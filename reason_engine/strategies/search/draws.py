"""Draws the paths of a search: each goes on from the tokens of a state, within the room that a whole path has and in
time for the end of the search."""

from __future__ import annotations

from dataclasses import replace

from reason_engine.answers import find, normalise
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.pace import ANSWER, Pace
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Draw, Path


class Draws:
    """Of one search; `pace` measures them. `paced`: they give way when the end of the search is due."""

    def __init__(self, ctx: Context, temperature: float, pace: Pace, *, paced: bool) -> None:
        self.temperature, self._ctx, self._pace, self._paced = temperature, ctx, pace, paced
        self.prompt = ctx.format_prompt("steps")
        self._structured = ctx.form is not None
        self.final = bool(ctx.problem.tools) and not self._structured
        prompt = ctx.tokenized(self.prompt, final=self.final)
        self.rendered = prompt.text
        """The prompt that every state continues."""
        context = ctx.info.context
        self._asked = len(prompt.ids)
        self._ceiling = min(context, self._asked + (ctx.max_tokens or context))

    async def steps(self, ctx: Context, start: Thought, n: int, end: str, most: int) -> list[tuple[Path, Path]]:
        """Up to n texts that end at `end` or after so many tokens: each as it was drawn, and as the path from its
        beginning."""
        paths = await self._draw(ctx, start, n, (end,), most, "propose")
        return [(path, self._joined(start, path)) for path in paths]

    async def ends(self, ctx: Context, start: Thought, n: int, beside: int) -> list[Path]:
        """Up to n paths through this state to their ends, with so many `beside` them; none where no room is left. Those
        that time is too short for are asked for their answers."""
        if (room := self.room(start)) <= 0:
            return []
        if self._paced and not ctx.caps.sample_abort:
            room = min(room, self._pace.room(beside) or room)
        paths = [self._joined(start, path) for path in await self._draw(ctx, start, n, (), room, "finish")]
        if not (self._paced and ctx.caps.sample_abort and self._pace.gave_way and ctx.caps.continuation):
            return paths

        async def answered(path: Path) -> Path:
            if path.finished or self._structured:
                return path
            draw = Draw(1, ANSWER, self.temperature, stage="finish", final=True)
            return self._joined(Thought(text=path.text, path=path), (await ctx.extend(path, draw))[0])

        try:
            asked = await ctx.gather_within_budget(answered, paths)
        except BudgetExhausted:
            return paths
        return [new or old for new, old in zip(asked, paths, strict=True)]

    def room(self, thought: Thought) -> int:
        """Tokens that a path through this thought may still have."""
        return self._ceiling - self._asked - self.written(thought)

    def written(self, thought: Thought) -> int:
        """Tokens of a thought."""
        path = thought.path
        if not thought.text:
            return 0
        if path and path.text == thought.text and path.token_ids:
            return len(path.prompt_ids) + len(path.token_ids) - self._asked
        return self._ctx.count_tokens(self.rendered + thought.text) - self._asked

    async def _draw(
        self, ctx: Context, thought: Thought, n: int, stop: tuple[str, ...], most: int, stage: str
    ) -> list[Path]:
        # What is to be an answer is asked for it once more where it gives none.
        final, stint = self.final or not (stop or self._structured), self._pace.begin(n)
        watch = self._pace.watch(stint, self.written(thought) if stop else None) if self._paced else None
        draw = Draw(n, most, self.temperature, stop, stage=stage, final=final, drop=watch)
        longest = 0
        try:
            if thought.path and ctx.caps.continuation:
                paths = await ctx.extend(thought.path, draw)
            else:
                paths = await ctx.sample(self.prompt, replace(draw, prefill=thought.text))
            longest = max((path.tokens for path in paths), default=0)
        finally:
            self._pace.end(stint, n, longest)
        return paths

    def _joined(self, thought: Thought, path: Path) -> Path:
        """A path through a thought as one that was drawn in one go, so that whoever judges it sees all its tokens.
        Where what is read from whole paths would be their final form, its answer is what its steps say."""
        before = thought.path
        # Where a stop string ended inside a token, the tokens so far say more than the text.
        if before is not None and path.prompt_ids == (*before.prompt_ids, *before.token_ids):
            path = replace(
                path,
                prefill=before.prefill,
                prompt_ids=before.prompt_ids,
                token_ids=(*before.token_ids, *path.token_ids),
                logprobs=(*before.logprobs, *path.logprobs),
                tokens=before.tokens + path.tokens,
            )
        if not self._structured:
            return path
        value = find(path.text, marker=self._ctx.profile.answer_marker)
        return replace(path, answer=value and normalise(value))
