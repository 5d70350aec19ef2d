"""How a search treats a model that thinks by itself: by default it never works inside a thought.

A thought is one long draft that comes back to itself, so its beginnings can be valued by nobody, and searching in it
costs many times a vote over whole thoughts for the same result. So the thoughts are drawn whole first, several of them,
and the search works on the text that follows each. Turning the thought off instead would search, but answer worse than
the model does alone. A thought that takes too long is ended by the words that the engine's model ends one with.
`inside` asks for steps inside the thought, of at least `LEAST` characters (about 50 tokens).
"""

from __future__ import annotations

from dataclasses import replace

from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.draws import Draws
from reason_engine.strategies.search.pace import Pace
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Draw

THOUGHTS = 4
"""Most thoughts that a search begins with."""
WHOLE, AFTER = 4096, 512
"""Tokens that a thought is given room for before fewer are drawn; tokens that are kept for what follows it."""
LEAST = 200


class Thinking:
    """The thoughts of one search; `prompt` is its rendered prompt."""

    def __init__(self, ctx: Context, prompt: str, *, inside: bool) -> None:
        info = ctx.info
        self.thinks, self._marked = ctx.thinks, info.thinks
        self.inside = inside and self.thinks
        self._end, self._close = info.think_end, info.think_close
        self._opened = info.thinks and prompt.rstrip().endswith(info.think_start)
        self._start = info.think_start

    @property
    def first(self) -> bool:
        """Whether the thoughts are drawn whole before the search begins."""
        return self.thinks and not self.inside

    def beginning(self) -> Thought:
        """The state before the first step: past a thought that the template opens though none is wanted."""
        return Thought() if self.thinks else self.without()

    def without(self) -> Thought:
        """The state before the first step where there is to be no thought."""
        return Thought(text=self._close) if self._opened else Thought()

    def content(self, text: str) -> str:
        """What follows the thought; empty inside it."""
        if not self._marked:
            return text
        return "" if self.open(text) else text.rpartition(self._end)[2]

    def open(self, text: str) -> bool:
        """Whether a text ends inside a thought."""
        begun = self._opened or text.lstrip().startswith(self._start)
        return self._marked and begun and self._end not in text

    async def whole(self, ctx: Context, draws: Draws, n: int, pace: Pace) -> list[Thought]:
        """Up to n whole thoughts as states to begin with, or answers where the model did not think."""
        free, room, n = ctx.budget.free, draws.room(Thought()), min(n, THOUGHTS)
        if free is not None:
            n = max(1, min(n, free // (WHOLE + AFTER)))
            room = min(room, free // n)
        most = room - AFTER if room > 2 * AFTER else room // 2
        if most <= 0:
            raise BudgetExhausted("budget-tokens")
        stint = pace.begin(n)
        draw = Draw(n, most, draws.temperature, (self._end,), stage="think", final=draws.final)
        begun, longest = list[Thought](), 0
        try:
            paths = await ctx.sample(draws.prompt, replace(draw, drop=pace.watch(stint, 0)))
            longest = max(path.tokens for path in paths)
        finally:
            pace.end(stint, n, longest)
        for path in paths:
            if path.stop_reason == self._end:
                begun.append(Thought(text=path.text, path=path))
            elif path.finished and self.content(path.text).strip():
                text = path.text
                begun.append(Thought((text.strip(),), text, text.strip(), path=path, done=True))
            else:
                begun.append(Thought(text=path.text + self._close))
        return begun
