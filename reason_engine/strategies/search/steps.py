"""Grows partial solutions step by step, for every search over steps.

A step ends where the profile says (`step_end`), without one at a blank line; what is no step by itself goes on
(`reason_engine.steps`). The next step continues on the tokens of the last, so that an engine reads a prefix once.
Several steps from one state are one engine request. A solution has come to its end where the model ends it or where it
holds a closed answer: a box, or a marked line that has ended; a heading alone is no end. Where the profile knows the
task, its checker drops illegal lines and tells whether an answer is right; it never proposes, values or looks ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp

from reason_engine.answers import closed, find, normalise
from reason_engine.contracts import Checker
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.steps import LEAST, is_step, step_pieces
from reason_engine.strategies.search.pace import Pace
from reason_engine.strategies.search.thinking import LEAST as LEAST_INSIDE
from reason_engine.strategies.search.thinking import Thinking
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Answer, Draw, Path

PIECES = 6
"""Draws that one step may take: of empty lines, of pieces that are no step by themselves."""


class Steps:
    """The steps of one search, drawn at temperature `temperature` with at most `most` tokens each. `wanted`: the ends
    that it is to come to."""

    def __init__(
        self, ctx: Context, *, temperature: float, most: int, wanted: int = 1, inside_thoughts: bool = False
    ) -> None:
        self.temperature, self.most, self._ctx = temperature, most, ctx
        self._profile, self._checker = ctx.profile, ctx.checker
        self._prompt = ctx.format_prompt("steps")
        self._structured = ctx.form is not None
        self._final = bool(ctx.problem.tools) and not self._structured
        prompt = ctx.tokenized(self._prompt, final=self._final)
        self.rendered = prompt.text
        """The prompt that every state continues."""
        context = ctx.info.context
        self._ceiling = min(context, len(prompt.ids) + (ctx.max_tokens or context))
        self._asked = len(prompt.ids)
        self._thinking = Thinking(ctx, self.rendered, inside=inside_thoughts)
        self._begun: list[Thought] = []
        self.pace = Pace(ctx.budget, wanted)

    @property
    def checked(self) -> bool:
        """Whether a checker can tell a right answer from a wrong one."""
        return self._checker is not None

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
        return not self.checked and self.pace.late(max((self._written(state) for state in states), default=0))

    def breadth(self, k: int, *states: Thought) -> int:
        """How many of k steps from each of these states to draw at once, so that the ends that are wanted can still be
        come to in time; at least two."""
        if self.checked:
            return k
        beside = max(1, len(states))
        return min(k, max(2, self.pace.rows(k * beside, self.left(*states) * self.pace.missing) // beside))

    async def grow(self, ctx: Context, thought: Thought, k: int) -> list[Thought]:
        """Up to k legal thoughts one step further. Raises BudgetExhausted if not one could be drawn."""
        if self.at_goal(thought):
            return await self._conclude(ctx, thought, k)
        if thought.text:
            return self.legal(await self._sample(ctx, thought, k))
        if not self._thinking.first:
            return self.legal(await self._sample(ctx, self._thinking.beginning(), k))
        return await self._after_thoughts(ctx, k)

    async def finish(self, ctx: Context, thought: Thought, beside: int = 1) -> Thought | None:
        """The thought taken to its end in one go, with so many `beside` it: a playout. None where no room is left."""
        return next(iter(await self._finished(ctx, thought, 1, beside)), None)

    async def ends(self, ctx: Context, thought: Thought, n: int, beside: int) -> list[Thought]:
        """Up to n ends of this thought, or of the beginning, with so many beside them, these included."""
        begin = thought if thought.text else self._thinking.beginning()
        return [end for end in await self._finished(ctx, begin, n, beside) if end.done]

    def left(self, *states: Thought) -> int:
        """Tokens that each of these states is expected to need to its end."""
        return max((self.pace.left(self._written(state)) for state in states), default=self.pace.left(0))

    async def in_requested_form(self, ctx: Context, answer: Answer, worked: str) -> Answer:
        """The answer in the form that the request asks for, from what was `worked` out: a search goes by steps, which
        no schema fits."""
        if not self._structured:
            return answer
        prompt = FORM.replace("{problem}", ctx.problem.question).replace("{steps}", worked.strip())
        async with ctx.span("form") as here:
            (path,) = await here.sample(prompt, Draw(temperature=self.temperature, stage="finish", final=True))
        return replace(answer, path=path, value=path.answer)

    def step(self, thought: Thought, line: str, text: str, *, ended: bool = False) -> Thought:
        """The thought that a line leads to; `text` is all that is written by then, `ended`: nothing follows."""
        steps = (*thought.steps, line)
        content = self._thinking.content(text)
        done = ended or closed(content, self._ctx.spec, marker=self._profile.answer_marker)
        return Thought(steps, text, self._key(steps, text, done), done=done)

    def legal(self, thoughts: Sequence[Thought]) -> list[Thought]:
        """Those that the checker allows."""
        return [thought for thought in thoughts if self._checker is None or self._allowed(self._checker, thought)]

    def at_goal(self, thought: Thought) -> bool:
        """Whether the checker finds that these steps have reached the goal."""
        return self._checker is not None and not thought.done and self._checker.outcome(thought.steps) is True

    def verdict(self, thought: Thought) -> bool | None:
        """What the checker knows of a thought: whether its answer is right, or that its steps are at the goal."""
        if self._checker is None or not thought.done:
            return True if self.at_goal(thought) else None
        answer = thought.path.answer if thought.path else None
        return answer is not None and self._checker.solved(answer)

    def state(self, thought: Thought) -> str:
        """The state in words, for a prompt."""
        return self._key(thought.steps, thought.text, thought.done)

    def solved(self, done: Sequence[Thought]) -> bool:
        """Whether the checker finds one of these answers right."""
        return any(self.verdict(thought) is True for thought in done)

    async def _finished(self, ctx: Context, thought: Thought, n: int, beside: int) -> list[Thought]:
        if (room := self._room(thought)) <= 0:
            return []
        room = room if self.checked else min(room, self.pace.room(beside) or room)
        return [self._ended(thought, path) for path in await self._draw(ctx, thought, n, (), room, "finish")]

    def _ended(self, thought: Thought, path: Path) -> Thought:
        """What a path makes of a thought that it was to take to its end."""
        path = self._read(_joined(thought, path))
        pieces = step_pieces(path.text[len(thought.text) :], self._profile.step_end)
        lines = [piece for piece in pieces if piece.strip()]
        if path.finished:
            self.pace.came_to_end(self._written(Thought(text=path.text, path=path)))
        return Thought((*thought.steps, *lines), path.text, self._text(path.text), path=path, done=path.finished)

    async def _after_thoughts(self, ctx: Context, k: int) -> list[Thought]:
        """The first steps after thoughts that are drawn whole; whole answers where the engine continues nothing."""
        if not ctx.caps.continuation:
            ends = await ctx.gather_within_budget(lambda _: self.finish(ctx, Thought(), k), range(k))
            return [end for end in ends if end and end.done]
        draw = Draw(k, temperature=self.temperature, final=self._final)
        states = await self._thinking.whole(ctx, draw, self._prompt, self._ceiling - self._asked, self.pace)
        self._begun = [state for state in states if not state.done]
        done = [state for state in states if state.done]
        shares = [(state, -(-(k - i) // len(self._begun))) for i, state in enumerate(self._begun) if i < k]
        grown = await ctx.gather_within_budget(lambda share: self._sample(ctx, *share), shares)
        return [*done, *(child for children in grown for child in children or ())]

    async def _sample(self, ctx: Context, thought: Thought, n: int) -> list[Thought]:
        grown, starts = list[Thought](), [(thought, n)]
        for turn in range(PIECES):
            found = await self._pieces(ctx, thought, starts, first=turn == 0)
            again: dict[str, list[Path]] = {}
            for path, whole, cut_at in found:
                if child := self._child(thought, path, cut_at, last=turn == PIECES - 1):
                    grown.append(replace(child, path=whole, likelihood=exp(path.mean_logprob)))
                elif path.stop_reason == self._profile.step_end:
                    again.setdefault(path.text.strip(), []).append(whole)
            if not again:
                break
            # What is no step by itself is not one yet: what began with it goes on.
            starts = [(replace(thought, text=same[0].text, path=same[0]), len(same)) for same in again.values()]
        for child in grown:
            if child.done:
                self.pace.came_to_end(self._written(child))
        return grown

    async def _pieces(
        self, ctx: Context, thought: Thought, starts: Sequence[tuple[Thought, int]], *, first: bool
    ) -> list[tuple[Path, Path, int]]:
        """One more piece from each start: the path as drawn, the path from its beginning, and where it would be cut."""
        begun, end = self._written(thought), (self._profile.step_end,)

        async def draw(start: Thought, n: int) -> list[tuple[Path, Path, int]]:
            most = min(self.most - (0 if first else self._written(start) - begun), self._room(start))
            if most <= 0:
                return []
            paths = await self._draw(ctx, start, n, end, most, "propose")
            return [(path, self._read(_joined(start, path)), most) for path in paths]

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
        while 2 * drawn < k and not self.solved(found):
            size = min(size, k - drawn)
            found += self.legal(await self._sample(ctx, thought, size))
            drawn, size = drawn + size, 2 * size
        return [thought for thought in found if thought.done]

    async def _draw(
        self, ctx: Context, thought: Thought, n: int, stop: tuple[str, ...], most: int, stage: str
    ) -> list[Path]:
        final, stint = self._final or not (stop or self._structured), self.pace.begin(n)
        watch = self.pace.watch(stint, self._written(thought)) if stop and not self.checked else None
        draw = Draw(n, most, self.temperature, stop, stage=stage, final=final, drop=watch)
        longest = 0
        try:
            if thought.path and ctx.caps.continuation:
                paths = await ctx.extend(thought.path, draw)
            else:
                paths = await ctx.sample(self._prompt, replace(draw, prefill=thought.text))
            longest = max((path.tokens for path in paths), default=0)
        finally:
            self.pace.end(stint, n, longest)
        return paths

    def _room(self, thought: Thought) -> int:
        """Tokens that a path through this thought may still have."""
        return self._ceiling - self._asked - self._written(thought)

    def _written(self, thought: Thought) -> int:
        """Tokens of a thought."""
        path = thought.path
        if not thought.text:
            return 0
        if path and path.text == thought.text and path.token_ids:
            return len(path.prompt_ids) + len(path.token_ids) - self._asked
        return self._ctx.count_tokens(self.rendered + thought.text) - self._asked

    def _child(self, thought: Thought, path: Path, most: int, *, last: bool) -> Thought | None:
        """What one path adds; None where it adds nothing, is no step yet or was cut before its step was whole."""
        piece, ended = path.text[len(thought.text) :], path.stop_reason != self._profile.step_end
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
            return child if child.done or last or is_step(piece, self._profile.step_end, least) else None
        if ended and thought.steps:
            return Thought(thought.steps, path.text, self._text(path.text), done=True)
        return None

    def _read(self, path: Path) -> Path:
        """The path with its answer by steps, where what is read from whole paths would be their final form."""
        if not self._structured:
            return path
        value = find(path.text, marker=self._profile.answer_marker)
        return replace(path, answer=value and normalise(value))

    def _key(self, steps: tuple[str, ...], text: str, done: bool) -> str:
        return self._text(text) if done or not self._checker else self._checker.state(steps)

    def _text(self, text: str) -> str:
        return (text if self._thinking.inside else self._thinking.content(text)).strip()

    def _allowed(self, checker: Checker, thought: Thought) -> bool:
        if thought.done:
            return thought.path is not None and thought.path.answer is not None
        return checker.step_ok(thought.steps) and checker.outcome(thought.steps) is not False


def _joined(thought: Thought, path: Path) -> Path:
    """A path through a thought as one that was drawn in one go, so that whoever judges it sees all its tokens."""
    before = thought.path
    # Where a stop string ended inside a token, the tokens so far say more than the text.
    if before is None or path.prompt_ids != (*before.prompt_ids, *before.token_ids):
        return path
    return replace(
        path,
        prefill=before.prefill,
        prompt_ids=before.prompt_ids,
        token_ids=(*before.token_ids, *path.token_ids),
        logprobs=(*before.logprobs, *path.logprobs),
        tokens=before.tokens + path.tokens,
    )


FORM = """{problem}

A worked solution:
{steps}

Give its answer in the form that is asked for, and nothing else."""
