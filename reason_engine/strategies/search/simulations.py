"""The simulations of a Monte Carlo tree search: down the tree by the bound, some steps from where each ends, the value
of the best of them up the branch. Those of one round go down one after the other, each under the virtual losses of
those before, and are expanded together."""

from __future__ import annotations

from collections.abc import Sequence

from reason_engine.runtime.context import Context
from reason_engine.strategies.search.playouts import Playouts
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought, merge, unseen
from reason_engine.strategies.search.uct import (
    Node,
    Score,
    add_virtual_loss,
    backup,
    priors,
    remove_virtual_loss,
    select_branch,
)
from reason_engine.strategies.search.values import Values


class Simulations:
    """The tree of one run and its answers. `k` steps at an expansion; a state of `depth` steps is closed."""

    def __init__(
        self, steps: Steps, values: Values | Playouts, score: Score, *, k: int, depth: int, widening: float
    ) -> None:
        self.steps, self.values = steps, values
        self._score, self._k, self._depth, self._widening = score, k, depth, widening
        self._root, self._ends = Node(Thought()), list[Thought]()

    @property
    def ends(self) -> list[Thought]:
        """Every answer found, those of playouts included."""
        return self._ends + (self.values.ends if isinstance(self.values, Playouts) else [])

    @property
    def solved(self) -> bool:
        """Whether an answer is known to be right."""
        return self.steps.rules.solved(self.ends)

    @property
    def open(self) -> list[Thought]:
        """The states that nothing follows yet."""
        found, nodes = list[Thought](), [self._root]
        while nodes:
            node = nodes.pop()
            nodes += node.children
            if not node.children and not node.thought.done:
                found.append(node.thought)
        return found

    def together(self, most: int) -> int:
        """How many of so many simulations there is time to run at once; 0 where there is none for one more."""
        if self.steps.checked:
            return most
        tokens = 2 * self.steps.left(self.values.furthest)
        if self.ends and not self.steps.pace.fits(self._k, tokens):
            return 0
        return max(1, min(most, self.steps.pace.rows(most * self._k, tokens) // self._k))

    async def run(self, ctx: Context, most: int) -> int:
        """Up to `most` simulations together; returns how many there were."""
        branches, tried = self._select(most)
        grown = await ctx.gather_within_budget(lambda branch: self._expanded(ctx, *branch), list(enumerate(branches)))
        valued = iter(await self.values.of(ctx, [thought for group in grown for thought in group or ()]))
        for branch in tried:
            remove_virtual_loss(branch)
        for branch, group in zip(branches, grown, strict=True):
            if group is not None:
                children = [found for _ in group if (found := next(valued))]
                self._attach(branch[-1], children)
                backup(branch, max((child.value for child in children), default=0.0))
        return len(branches)

    def first_steps(self) -> list[list[object]]:
        """What the search thinks of the first steps: step, visits, mean value; most visited first."""
        children = sorted(self._root.children, key=lambda child: -child.visits)
        return [[child.thought.steps[-1], child.visits, round(child.mean, 4)] for child in children]

    def _select(self, most: int) -> tuple[list[list[Node]], list[list[Node]]]:
        """Branches to different leaves, and all that were tried: each is under a virtual loss."""
        branches, tried = list[list[Node]](), list[list[Node]]()
        while len(branches) < most and len(tried) < 2 * most:
            branch = select_branch(self._root, self._score, self._widening)
            add_virtual_loss(branch)
            tried.append(branch)
            if all(branch[-1] is not other[-1] for other in branches):
                branches.append(branch)
        return branches, tried

    async def _expanded(self, ctx: Context, number: int, branch: Sequence[Node]) -> list[Thought]:
        leaf = branch[-1]
        async with ctx.span(f"simulation {number}") as here:
            here.note(state=list(leaf.thought.steps), visits=leaf.visits, total=round(leaf.total, 4))
            k = self.steps.breadth(self._k, leaf.thought)
            grown = merge(await self.steps.grow(here, leaf.thought, k))
            return unseen(grown, {child.thought.key for child in leaf.children})

    def _attach(self, leaf: Node, group: Sequence[Thought]) -> None:
        leaf.expansions += 1
        for thought, prior in zip(group, priors(group), strict=True):
            leaf.add(thought, prior=prior, closed=thought.done or thought.depth >= self._depth)
            if thought.done:
                self._ends.append(thought)
