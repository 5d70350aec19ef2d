"""Grows partial solutions step by step, for every search over steps.

A step ends where the profile says (`step_end`), without one at a blank line; what is no step by itself goes on
(`reason_engine.steps`). The next step continues on the tokens of the last, so that an engine reads a prefix once.
Several steps from one state are one engine request. A solution has come to its end where the model ends it or where it
holds a closed answer: a box, or a marked line that has ended; a heading alone is no end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp

from reason_engine.answers import closed
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.steps import LEAST, is_step, step_pieces
from reason_engine.strategies.search.draws import Draws
from reason_engine.strategies.search.pace import Pace
from reason_engine.strategies.search.rules import Rules
from reason_engine.strategies.search.thinking import LEAST as LEAST_INSIDE
from reason_engine.strategies.search.thinking import Thinking
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Path

PIECES = 6
"""Draws that one step may take: of empty lines, of pieces that are no step by themselves."""


class Steps:
    """The steps of one search, drawn at temperature `temperature` with at most `most` tokens each. `wanted`: the ends
    that it is to come to."""

    def __init__(
        self, ctx: Context, *, temperature: float, most: int, wanted: int = 1, inside_thoughts: bool = False
    ) -> None:
        self.most, self._ctx, self._end = most, ctx, ctx.profile.step_end
        self.rules, self.pace = Rules(ctx.checker), Pace(ctx.budget, wanted)
        self.draws = Draws(ctx, temperature, self.pace, paced=not self.checked)
        self._thinking = Thinking(ctx, self.draws.rendered, inside=inside_thoughts)
        self._begun: list[Thought] = []

    @property
    def checked(self) -> bool:
        """Whether a checker can tell a right answer from a wrong one."""
        return self.rules.known

    @property
    def beginning(self) -> Thought:
        """The state that a search without a better one goes on from: past a thought, where one was drawn."""
        return self._begun[0] if self._begun else self._thinking.beginning()

    @property
    def without_thought(self) -> Thought:
        """The state before the first step of a model that does not think here."""
        return self._thinking.without()

    def late(self, *states: Thought) -> bool:
        """Whether it is time to take states as far as these to their ends. A search with a checker goes on: its first
        right answer ends it."""
        return not self.checked and self.pace.late(max(map(self.draws.written, states), default=0))

    def left(self, *states: Thought) -> int:
        """Tokens that each of these states is expected to need to its end."""
        return self.pace.left(min(map(self.draws.written, states), default=0))

    def breadth(self, k: int, *states: Thought) -> int:
        """How many of k steps from each of these states to draw at once, so that the ends that are wanted can still be
        come to in time, as many of them together as there are states; at least two."""
        if self.checked:
            return k
        beside = max(1, len(states))
        turns = -(-self.pace.missing // beside)
        return min(k, max(2, self.pace.rows(k * beside, self.left(*states) * turns) // beside))

    async def grow(self, ctx: Context, thought: Thought, k: int) -> list[Thought]:
        """Up to k legal thoughts one step further. Raises BudgetExhausted if not one could be drawn."""
        if self.rules.at_goal(thought):
            return await self._conclude(ctx, thought, k)
        if not thought.text and self._thinking.first:
            return await self._after_thoughts(ctx, k)
        return self.rules.legal(await self._sample(ctx, thought if thought.text else self._thinking.beginning(), k))

    async def finish(self, ctx: Context, thought: Thought, beside: int = 1) -> Thought | None:
        """The thought taken to its end in one go, with so many `beside` it: a playout. None where no room is left."""
        return next((self._ended(thought, path) for path in await self.draws.ends(ctx, thought, 1, beside)), None)

    async def ends(self, ctx: Context, thought: Thought, n: int, beside: int) -> list[Thought]:
        """Up to n ends of this thought, or of the beginning, with so many beside them, these included."""
        begin = thought if thought.text else self._thinking.beginning()
        paths = await self.draws.ends(ctx, begin, n, beside)
        return [end for path in paths if (end := self._ended(begin, path)).done]

    def step(self, thought: Thought, line: str, text: str, *, ended: bool = False) -> Thought:
        """The thought that a line leads to; `text` is all that is written by then, `ended`: nothing follows."""
        steps, content = (*thought.steps, line), self._thinking.content(text)
        done = ended or closed(content, self._ctx.spec, marker=self._ctx.profile.answer_marker)
        return Thought(steps, text, self._key(steps, text, done), done=done)

    def state(self, thought: Thought) -> str:
        """The state in words, for a prompt."""
        return self._key(thought.steps, thought.text, thought.done)

    async def _after_thoughts(self, ctx: Context, k: int) -> list[Thought]:
        """The first steps after thoughts that are drawn whole; whole answers where the engine continues nothing."""
        if not ctx.caps.continuation:
            return await self.ends(ctx, Thought(), k, k)
        states = await self._thinking.whole(ctx, self.draws, k, self.pace)
        self._begun = [state for state in states if not state.done]
        shares = [(state, -(-(k - i) // len(self._begun))) for i, state in enumerate(self._begun) if i < k]
        grown = await ctx.gather_within_budget(lambda share: self._sample(ctx, *share), shares)
        done = [state for state in states if state.done]
        return [*done, *(child for children in grown for child in children or ())]

    async def _sample(self, ctx: Context, thought: Thought, n: int) -> list[Thought]:
        grown, starts = list[Thought](), [(thought, n)]
        for turn in range(PIECES):
            again: dict[str, list[Path]] = {}
            for path, whole, most in await self._pieces(ctx, thought, starts, first=turn == 0):
                if child := self._child(thought, path, most, last=turn == PIECES - 1):
                    grown.append(replace(child, path=whole, likelihood=exp(path.mean_logprob)))
                elif path.stop_reason == self._end:
                    again.setdefault(path.text.strip(), []).append(whole)
            if not again:
                break
            # What is no step by itself is not one yet: what began with it goes on.
            starts = [(replace(thought, text=same[0].text, path=same[0]), len(same)) for same in again.values()]
        for child in grown:
            if child.done:
                self.pace.came_to_end(self.draws.written(child))
        return grown

    async def _pieces(
        self, ctx: Context, thought: Thought, starts: Sequence[tuple[Thought, int]], *, first: bool
    ) -> list[tuple[Path, Path, int]]:
        """One more piece from each start: the path as drawn, the path from its beginning, and where it would be cut."""
        before = self.draws.written(thought)

        async def draw(start: Thought, n: int) -> list[tuple[Path, Path, int]]:
            begun = 0 if first else self.draws.written(start) - before
            most = min(self.most - begun, self.draws.room(start))
            drawn = await self.draws.steps(ctx, start, n, self._end, most) if most > 0 else []
            return [(path, whole, most) for path, whole in drawn]

        if first:
            return await draw(*starts[0])
        try:
            drawn = await ctx.gather_within_budget(lambda start: draw(*start), starts)
        except BudgetExhausted:
            return []
        return [piece for pieces in drawn for piece in pieces or ()]

    async def _conclude(self, ctx: Context, thought: Thought, k: int) -> list[Thought]:
        """The steps have reached the goal: draw answer lines, one, then twice as many, until one is right.

        Half of k is enough: a model that writes the same wrong line again will go on doing so.
        """
        drawn, size, found = 0, 1, list[Thought]()
        while 2 * drawn < k and not self.rules.solved(found):
            size = min(size, k - drawn)
            found += self.rules.legal(await self._sample(ctx, thought, size))
            drawn, size = drawn + size, 2 * size
        return [thought for thought in found if thought.done]

    def _child(self, thought: Thought, path: Path, most: int, *, last: bool) -> Thought | None:
        """What one path adds; None where it adds nothing, is no step yet or was cut before its step was whole."""
        piece, ended = path.text[len(thought.text) :], path.stop_reason != self._end
        line = piece.strip()
        if not path.finished:
            # A step of the most tokens is one, and its line goes on in the next; so does one that time was too short
            # for. A checker reads whole lines only.
            if self.checked or not line or (path.tokens < most and not self.late(thought)):
                return None
            return self.step(thought, line, path.text)
        if line:
            child = self.step(thought, line, path.text, ended=ended)
            least = LEAST_INSIDE if self._thinking.open(path.text) else LEAST
            return child if child.done or last or is_step(piece, self._end, least) else None
        if ended and thought.steps:
            return Thought(thought.steps, path.text, self._text(path.text), done=True)
        return None

    def _ended(self, thought: Thought, path: Path) -> Thought:
        """What a path makes of a thought that it was to take to its end."""
        pieces = step_pieces(path.text[len(thought.text) :], self._end)
        lines = [piece for piece in pieces if piece.strip()]
        end = Thought((*thought.steps, *lines), path.text, self._text(path.text), path=path, done=path.finished)
        if end.done:
            self.pace.came_to_end(self.draws.written(end))
        return end

    def _key(self, steps: tuple[str, ...], text: str, done: bool) -> str:
        name = None if done else self.rules.state(steps)
        return self._text(text) if name is None else name

    def _text(self, text: str) -> str:
        return (text if self._thinking.inside else self._thinking.content(text)).strip()
