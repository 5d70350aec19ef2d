"""Generates and evaluates thoughts for a tree search: the model's side of it. The tree itself is in `_tree.py`.

Yao et al. 2023, arXiv:2305.10601, section 3: G(p, s, k) by sampling or proposing, V(p, S) by value or vote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import exp
from typing import Literal, Protocol

from reason_engine.contracts import Checker
from reason_engine.runtime.context import Context
from reason_engine.runtime.reading import read_answer
from reason_engine.strategies._tree import Thought
from reason_engine.types import Answer, Path


class TreeSearch(Protocol):
    """The fields of a tree strategy that its thoughts depend on."""

    @property
    def k(self) -> int: ...
    @property
    def generate(self) -> Literal["sample", "propose"]: ...
    @property
    def evaluate(self) -> Literal["value", "vote", "likelihood"]: ...
    @property
    def step_tokens(self) -> int: ...
    @property
    def propose_prompt(self) -> str | None: ...
    @property
    def value_prompt(self) -> str | None: ...
    def heat(self, ctx: Context) -> float: ...


class Grower:
    """Grows and values the thoughts of one search. Remembers values by state and the furthest open thought."""

    def __init__(self, search: TreeSearch, ctx: Context) -> None:
        self._search, self._heat = search, search.heat(ctx)
        self._profile, self._checker = ctx.run.profile, ctx.run.checker
        self._values: dict[str, float] = {}
        self._furthest = Thought()

    @property
    def checked(self) -> bool:
        """Whether a checker can tell a right answer from a wrong one."""
        return self._checker is not None

    async def grow(self, ctx: Context, thought: Thought) -> list[Thought]:
        """Up to k legal thoughts one step further."""
        if self._search.generate == "propose":
            return self._legal(await self._propose(ctx, thought))
        if self._checker and self._checker.outcome(thought.steps) is True:
            return await self._conclude(ctx, thought)
        return self._legal(self._read(ctx, thought, await self._sample(ctx, thought, self._search.k)))

    async def valued(self, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought]:
        """The thoughts with their values in [0, 1]; finished ones are proposed as answers."""
        if self._search.evaluate == "vote":
            values = await self._vote(ctx, thoughts)
        else:
            values = [value or 0.0 for value in await ctx.together(lambda t: self._value(ctx, t), thoughts)]
        valued = [replace(thought, value=value) for thought, value in zip(thoughts, values, strict=True)]
        for thought in valued:
            if thought.path:
                ctx.judge(thought.path.node, thought.value, by=self._search.evaluate)
            if thought.done:
                ctx.propose(_answer(thought), thought.value)
            elif (thought.depth, thought.value) >= (self._furthest.depth, self._furthest.value):
                self._furthest = thought
        return valued

    def solved(self, done: Sequence[Thought]) -> bool:
        """Whether the checker finds one of these right."""
        return self.checked and any(thought.value == 1.0 for thought in done)

    async def answer(self, ctx: Context, ends: Sequence[Thought]) -> Answer:
        """The finished thought of highest value; without one, the furthest thought taken to its end."""
        if ends:
            return _answer(max(ends, key=lambda thought: thought.value))
        async with ctx.span("finish") as here:
            (path,) = await here.sample(
                here.worded("steps"), prefill=self._furthest.text, temperature=self._heat, final=True
            )
        return Answer(path, path.answer)

    async def _sample(self, ctx: Context, thought: Thought, n: int) -> list[Path]:
        stop, most = (self._profile.step_end,), self._search.step_tokens
        if thought.path and ctx.run.engine.caps.continuation:
            return await ctx.extend(
                thought.path, n=n, stop=stop, max_tokens=most, temperature=self._heat, stage="propose"
            )
        return await ctx.sample(
            ctx.worded("steps"), n=n, prefill=thought.text, stop=stop, max_tokens=most, temperature=self._heat,
            stage="propose",
        )  # fmt: skip

    async def _conclude(self, ctx: Context, thought: Thought) -> list[Thought]:
        """The steps have reached the goal: draw answer lines, one, then twice as many, until one is right.

        Half of k is enough: a model that writes the same wrong line again will go on doing so.
        """
        drawn, size, found = 0, 1, list[Thought]()
        while 2 * drawn < self._search.k and not any(self._right(end) for end in found):
            size = min(size, self._search.k - drawn)
            found += self._legal(self._read(ctx, thought, await self._sample(ctx, thought, size)))
            drawn, size = drawn + size, 2 * size
        return found

    async def _propose(self, ctx: Context, thought: Thought) -> list[Thought]:
        prompt = self._fill(
            self._search.propose_prompt or self._profile.propose_prompt or PROPOSE, ctx, thought
        )
        limit = self._search.step_tokens * self._search.k
        (path,) = await ctx.sample(prompt, max_tokens=limit, temperature=self._heat, stage="propose")
        lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", line).strip() for line in path.text.split("\n")]
        return [self._proposed(ctx, thought, path, line) for line in lines if line][: self._search.k]

    def _proposed(self, ctx: Context, thought: Thought, path: Path, line: str) -> Thought:
        text = f"{thought.text}{line}{self._profile.step_end}"
        grown = self._step(thought, line, text)
        if not grown.done:
            return grown
        # The proposing path stands for the answer it proposed.
        return replace(
            grown, path=replace(path, text=text, prefill=thought.text, answer=read_answer(ctx.run, text))
        )

    def _read(self, ctx: Context, thought: Thought, paths: Sequence[Path]) -> list[Thought]:
        grown: list[Thought] = []
        for path in paths:
            line = path.text[len(thought.text) :].strip()
            if path.finished and line:
                ended = path.stop_reason != self._profile.step_end
                grown.append(replace(self._step(thought, line, path.text, ended=ended), path=path))
        return grown

    def _step(self, thought: Thought, line: str, text: str, *, ended: bool = False) -> Thought:
        marker, steps = self._profile.answer_marker, (*thought.steps, line)
        done = ended or bool(marker and line.startswith(marker))
        key = text.strip() if done or not self._checker else self._checker.state(steps)
        return Thought(steps, text, key, done=done)

    def _legal(self, thoughts: Sequence[Thought]) -> list[Thought]:
        if not self._checker:
            return list(thoughts)
        return [thought for thought in thoughts if self._allowed(self._checker, thought)]

    def _allowed(self, checker: Checker, thought: Thought) -> bool:
        if thought.done:
            return thought.path is not None and thought.path.answer is not None
        return checker.step_ok(thought.steps) and checker.outcome(thought.steps) is not False

    def _right(self, thought: Thought) -> bool:
        answer = thought.path.answer if thought.path else None
        return bool(self._checker and answer is not None and self._checker.solved(answer))

    async def _value(self, ctx: Context, thought: Thought) -> float:
        if self._checker and (thought.done or self._checker.outcome(thought.steps) is True):
            return float(self._right(thought) if thought.done else True)
        if self._search.evaluate == "likelihood":
            return exp(thought.path.mean_logprob) if thought.path else 0.0
        if thought.key not in self._values:
            prompt = self._fill(
                self._search.value_prompt or self._profile.value_prompt or VALUE, ctx, thought
            )
            choice = await ctx.choice(prompt, self._profile.value_options, stage="value")
            self._values[thought.key] = choice.probabilities[0]
        return self._values[thought.key]

    async def _vote(self, ctx: Context, thoughts: Sequence[Thought]) -> list[float]:
        """Each state's share of k votes cast on all of them in one prompt."""
        if self._checker and any(self._right(thought) for thought in thoughts):
            return [float(self._right(thought)) for thought in thoughts]
        if len(thoughts) < 2:
            return [1.0 for _ in thoughts]
        listed = "\n\n".join(f"Choice {i}:\n{t.text.strip()}" for i, t in enumerate(thoughts, 1))
        prompt = VOTE.replace("{problem}", ctx.problem.question).replace("{choices}", listed)
        paths = await ctx.sample(
            prompt, n=self._search.k, temperature=self._heat, max_tokens=256, stage="vote"
        )
        cast = [
            int(found[-1])
            for path in paths
            if (found := re.findall(r"\d+", path.text)) and len(found[-1]) < 4
        ]
        return [cast.count(i) / max(1, len(cast)) for i in range(1, len(thoughts) + 1)]

    def _fill(self, prompt: str, ctx: Context, thought: Thought) -> str:
        state = (
            self._checker.state(thought.steps) if self._checker and not thought.done else thought.text.strip()
        )
        # One pass, so that braces inside a problem or a state are never read as places to fill.
        parts = {"{problem}": ctx.problem.question, "{state}": state}
        return re.sub(r"\{(?:problem|state)\}", lambda found: parts[found[0]], prompt)


def _answer(thought: Thought) -> Answer:
    path = thought.path
    return Answer(path, path.answer if path else None, thought.value)


PROPOSE = """{problem}

Steps so far:
{state}

List several different possible next steps, one a line, nothing else. A line that gives the final answer starts with \
'Answer:'."""

VALUE = """{problem}

A partial solution:
{state}

Can this partial solution be completed to a correct answer? Reply with one word: yes or no."""

VOTE = """{problem}

{choices}

Which choice is the most promising? Give your reasons in a sentence and end with its number."""
