"""The two orders in which tree of thoughts follows its states: breadth first and depth first (Yao et al. 2023,
arXiv:2305.10601, section 3.4, algorithms 1 and 2). Either ends in time to take its furthest states to their ends, and
where its values tell nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from reason_engine.runtime.context import Context
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought, elsewhere, keep_best, merge, most_promising, push, unseen
from reason_engine.strategies.search.values import Values


@dataclass
class Tree:
    """The states of one search: the `ends` it came to, and those that are `open`. `grow` makes the states that follow
    one; without a checker the search is over with `candidates`: ends, or depth first expansions that led to some."""

    grow: Callable[[Context, Thought], Awaitable[list[Thought]]]
    steps: Steps
    values: Values
    depth: int
    breadth: int
    visits: int
    threshold: float
    candidates: int
    ends: list[Thought] = field(default_factory=list[Thought])
    open: list[Thought] = field(default_factory=list[Thought])

    async def breadth_first(self, ctx: Context) -> None:
        """Algorithm 1: of each level the best states go on."""
        self.open = [Thought()]
        for depth in range(1, self.depth + 1):
            if self.steps.late(*self.open):
                break
            async with ctx.span(f"level {depth}") as here:
                level = list(enumerate(self.open))
                grown = await here.gather_within_budget(lambda state: self._expand(here, *state), level)
                states = merge([t for children in grown for t in children or ()])
                if self.steps.pace.gave_way:
                    self._unvalued(states, min(thought.value for thought in self.open))
                    break
                valued = await self.values.of(here, states)
                done = [thought for thought in valued if thought and thought.done]
                self.ends += done
                deeper = [thought for thought in valued if thought and not thought.done]
                self.open = keep_best(deeper, self.breadth)
                here.note(kept=[thought.key for thought in self.open])
            wanted = self.breadth if self.steps.checked else max(self.breadth, self.candidates)
            if self.steps.rules.solved(done) or not self.open or len(self.ends) >= wanted:
                break
            if self.values.fault:
                self.open = deeper
                break

    async def depth_first(self, ctx: Context) -> None:
        """Algorithm 2: the most promising state goes on, and its siblings when its subtree is exhausted."""
        self.open, visited, found = [Thought(value=1.0)], dict[Thought, int](), 0
        for visit in range(1, self.visits + 1):
            if self.steps.late(*self.open[-1:]):
                break
            thought = self.open.pop() if self.open else most_promising(visited)
            visited[thought] = visited.get(thought, 0) + 1
            async with ctx.span(f"visit {visit}") as here:
                seen = {known.key for known in visited}
                grown = unseen(merge(await self.grow(here, thought)), seen)
                if self.steps.pace.gave_way:
                    self._unvalued(grown, thought.value)
                    break
                children = [child for child in await self.values.of(here, grown) if child]
                here.note(depth=thought.depth, children=[[child.key, round(child.value, 4)] for child in children])
            done = [child for child in children if child.done]
            self.ends += done
            deeper = [child for child in children if not child.done and child.depth < self.depth]
            if self.steps.rules.solved(done):
                break
            self.open = push(self.open, deeper, 0.0 if self.values.fault else self.threshold)
            if self.values.fault:
                break
            if done and not self.steps.checked:
                found += 1
                if found >= self.candidates:
                    break
                self.open = elsewhere(self.open, self.ends)

    def _unvalued(self, states: Sequence[Thought], value: float) -> None:
        """Takes states in that there is no time to value: each is worth what it follows."""
        worth = [replace(state, value=value) for state in states]
        self.ends += [state for state in worth if state.done]
        self.open += [state for state in worth if not state.done]

    async def _expand(self, ctx: Context, number: int, thought: Thought) -> list[Thought]:
        async with ctx.span(f"state {number}") as here:
            return await self.grow(here, thought)
