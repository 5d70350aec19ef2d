"""The simulations of a Monte Carlo tree search: selection under virtual losses, expansion and evaluation, backup.

Chaslot, Winands and van den Herik 2008, section 3.3, with the workers of one round in place of threads: they choose
their ways one after the other and work together. The mathematics are in `_uct.py`.

Values thoughts by playouts: each is taken to its end in one go, and the end is judged.

The simulation of Monte Carlo tree search, Kocsis and Szepesvari 2006, with the language model as its policy. An end is
judged by the task's checker, where the profile knows the task, else by the verifier of whole answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

from reason_engine.runtime.context import Context
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import (
    Node,
    Thought,
    backup,
    descend,
    merge,
    priors,
    puct,
    revert,
    suppose,
    ucb1,
    unseen,
)
from reason_engine.strategies.search.values import Aggregate, Values


class Fields(Protocol):
    """What the simulations depend on."""

    @property
    def k(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def select(self) -> Literal["ucb", "puct"]: ...
    @property
    def exploration(self) -> float: ...
    @property
    def widening(self) -> float: ...
    @property
    def evaluate(self) -> Literal["value", "verifier", "rollout"] | None: ...
    @property
    def aggregate(self) -> Aggregate: ...
    @property
    def step_tokens(self) -> int: ...
    @property
    def value_prompt(self) -> str | None: ...
    def sampling_temperature(self, ctx: Context) -> float: ...


class Simulations:
    """The tree of one run and the answers found in it."""

    def __init__(self, fields: Fields, ctx: Context) -> None:
        self._fields = fields
        self.steps = Steps(ctx, temperature=fields.sampling_temperature(ctx), most=fields.step_tokens)
        valued = self.steps.checked and ctx.caps.choose
        by = fields.evaluate or ("value" if valued else "rollout")
        self.plays = by == "rollout"
        """Whether states are valued by playouts."""
        ctx.note(evaluate=by, verifier=None if by == "value" else ctx.verifier_name or None)
        self._playouts = Playouts(self.steps)
        self._values = (
            self._playouts
            if by == "rollout"
            else Values(ctx, self.steps, by, aggregate=fields.aggregate, prompt=fields.value_prompt)
        )
        self._score = partial({"ucb": ucb1, "puct": puct}[fields.select], c=fields.exploration)
        self._root, self._ends = Node(Thought()), list[Thought]()

    @property
    def ends(self) -> list[Thought]:
        """Every answer found, those of playouts included."""
        return self._ends + self._playouts.ends

    @property
    def solved(self) -> bool:
        """Whether an answer is known to be right."""
        return self.steps.solved(self.ends)

    @property
    def furthest(self) -> Thought:
        """The deepest state that is still open."""
        return self._values.furthest

    async def run(self, ctx: Context, most: int) -> int:
        """Up to `most` simulations together; returns how many there were."""
        ways, tried = self._ways(most)
        grown = await ctx.gather_within_budget(lambda way: self._expanded(ctx, *way), list(enumerate(ways)))
        valued = iter(await self._values.of(ctx, [thought for group in grown for thought in group or ()]))
        for way in tried:
            revert(way)
        for way, group in zip(ways, grown, strict=True):
            if group is not None:
                children = [found for _ in group if (found := next(valued))]
                self._attach(way[-1], children)
                backup(way, max((child.value for child in children), default=0.0))
        return len(ways)

    def first_steps(self) -> list[list[object]]:
        """What the search thinks of the first steps: step, visits, mean value; most visited first."""
        children = sorted(self._root.children, key=lambda child: -child.visits)
        return [[child.thought.steps[-1], child.visits, round(child.mean, 4)] for child in children]

    def _ways(self, most: int) -> tuple[list[list[Node]], list[list[Node]]]:
        """Ways to different leaves, and all that were tried: each is under a virtual loss."""
        ways, tried = list[list[Node]](), list[list[Node]]()
        while len(ways) < most and len(tried) < 2 * most:
            way = descend(self._root, self._score, self._fields.widening)
            suppose(way)
            tried.append(way)
            if all(way[-1] is not other[-1] for other in ways):
                ways.append(way)
        return ways, tried

    async def _expanded(self, ctx: Context, number: int, way: Sequence[Node]) -> list[Thought]:
        leaf = way[-1]
        async with ctx.span(f"simulation {number}") as here:
            here.note(state=list(leaf.thought.steps), visits=leaf.visits, total=round(leaf.total, 4))
            grown = merge(await self.steps.grow(here, leaf.thought, self._fields.k))
            return unseen(grown, {child.thought.key for child in leaf.children})

    def _attach(self, leaf: Node, group: Sequence[Thought]) -> None:
        leaf.expansions += 1
        for thought, prior in zip(group, priors(group), strict=True):
            leaf.add(thought, prior=prior, closed=thought.done or thought.depth >= self._fields.depth)
            if thought.done:
                self._ends.append(thought)


class Playouts:
    """The playouts of one search; `ends` has every end that was reached, with its value."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self.ends: list[Thought] = []
        self.furthest = Thought()
        """The deepest open thought valued so far, the best of those."""

    async def of(self, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought | None]:
        """The thoughts with the values of their ends: 0 where a playout reached none, None where none was drawn."""

        async def play(thought: Thought) -> Thought | None:
            return thought if thought.done else await self._steps.finish(ctx, thought)

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
            return {
                path.node: float(self._steps.solved([end])) for path, end in zip(paths, ends, strict=True)
            }
        scores = await ctx.score(paths)
        return {path.node: score.value for path, score in zip(paths, scores, strict=True) if score}

    def _seen(self, ctx: Context, thought: Thought, end: Thought, value: float) -> Thought:
        if end.done:
            ended = replace(end, value=value)
            ctx.propose(ended.answer, value)
            if not thought.done:
                self.ends.append(ended)
        if thought.path:
            ctx.judge(thought.path.node, value, by="rollout")
        thought = replace(thought, value=value)
        if not thought.done and (thought.depth, value) >= (self.furthest.depth, self.furthest.value):
            self.furthest = thought
        return thought
