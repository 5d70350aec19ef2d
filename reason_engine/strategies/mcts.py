"""Monte Carlo tree search over steps: UCT with a language model as policy.

Kocsis and Szepesvari 2006 (UCT) over a tree whose edges are steps of a solution, as in RAP, Hao et al. 2023,
arXiv:2305.14992, section 3.3. A simulation goes down by upper confidence bounds (`search/tree.py`), draws k steps from
where it ends (expansion), values them, and adds the best of these values to every node on its branch (backup).
`parallel` simulations go down one after the other, each under the virtual losses of those before (Chaslot, Winands and
van den Herik 2008, section 3.3, with the workers of one round in place of threads), and are expanded together, batched
in the engine.

    value of a state: by a process verifier; by the model's own judgement of the value prompt; or by playouts
    (`rollout`): taken to its end in one go, the end judged by a checker, else by the verifier

Departures: the evaluation of a new state is its first visit; a backup is the best child's value, as the step that a
greedy simulation would take first; states that ended are not visited again; equal states below one node are one; a node
is expanded again as its visits grow (progressive widening), and where all that follows it has ended. Where the profile
knows the task, its checker drops illegal lines and a right answer ends the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.profile import Profile
from reason_engine.runtime.context import Context
from reason_engine.runtime.verify import usual_step_judge
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.search.steps import Choose, Steps, choose_answer, final_answer, vote_settled
from reason_engine.strategies.search.tree import (
    Node,
    Thought,
    add_virtual_loss,
    backup,
    merge,
    priors,
    puct,
    remove_virtual_loss,
    select_branch,
    ucb1,
    unseen,
)
from reason_engine.strategies.search.values import Values
from reason_engine.strategies.voting.settle import CERTAIN, Certainty
from reason_engine.types import Aggregate, Answer, Problem

VALUED, PLAYED = 24, 6
"""Simulations where none are asked for: of states that are valued, and of states that are played to their ends."""


@strategies.register("mcts")
class MCTS(Strategy):
    """UCT over steps; `parallel` simulations at a time."""

    summary: ClassVar[str] = "Monte Carlo tree search over steps"
    paper: ClassVar[str] = "arXiv:2305.14992"
    usual_temperature: ClassVar[float] = 0.8

    simulations: int | None = Field(
        None, ge=1, le=1024, description="most simulations; unset: 24, or 6 of those that play to the end"
    )
    k: int = Field(4, ge=1, le=64, description="steps to draw at an expansion")
    parallel: int = Field(4, ge=1, le=64, description="simulations that run together")
    depth: int = Field(16, ge=1, le=256, description="most steps of a solution, its answer line included")
    select: Literal["ucb", "puct"] = Field("ucb", description="the bound that leads down the tree")
    exploration: float = Field(1.0, ge=0, le=100, description="c of the bound: weight of what is little visited")
    widening: float = Field(0.5, ge=0, le=1, description="how fast a visited state gains more steps; 0: never")
    evaluate: Literal["value", "verifier", "rollout"] | None = Field(
        None, description="what values states; unset: the model where a checker knows the task, else rollouts"
    )
    aggregate: Aggregate = Field("min", description="verifier: how the scores of several steps become one")
    choose: Choose = Field("vote", description="vote weighted by value, or the finished path of highest value")
    adaptive: bool = Field(False, description="vote: stop when the vote is settled")
    confidence: Certainty = CERTAIN
    step_tokens: int = Field(256, ge=1, le=4096, description="most tokens of one step")
    value_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {state}")

    @property
    def width(self) -> int:
        return self.parallel * self.k

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"choose"}) if self.evaluate == "value" else frozenset()

    @property
    def judges_steps(self) -> bool:
        return self.evaluate == "verifier"

    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None:
        if self.judge or self.evaluate == "value":
            return self.judge
        if checked and self.evaluate != "verifier":
            return None
        return usual_step_judge(profile), {}

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Simulate until the simulations are spent, an answer is known to be right, or the vote is settled."""
        search = Simulations(self, ctx)
        most = self.simulations or (PLAYED if search.plays else VALUED)
        answer, settled, spent, rounds = Answer(), False, 0, 0
        while spent < most and not settled and not search.solved:
            rounds, before = rounds + 1, len(search.ends)
            async with ctx.span(f"round {rounds}") as here:
                spent += await search.run(here, min(self.parallel, most - spent))
            if len(search.ends) > before:
                answer = await choose_answer(ctx, search.steps, search.ends, self.choose)
            voted = self.adaptive and self.choose == "vote"
            settled = voted and vote_settled(answer, (most - spent) * self.k, self.confidence)
        ctx.note(simulations=spent, first_steps=search.first_steps())
        final = await final_answer(ctx, search.steps, search.furthest, search.ends, self.choose)
        return replace(final, decided=settled)


class Simulations:
    """The tree of one run and the answers found in it."""

    def __init__(self, fields: MCTS, ctx: Context) -> None:
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
        branches, tried = self._select(most)
        grown = await ctx.gather_within_budget(lambda branch: self._expanded(ctx, *branch), list(enumerate(branches)))
        valued = iter(await self._values.of(ctx, [thought for group in grown for thought in group or ()]))
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
            branch = select_branch(self._root, self._score, self._fields.widening)
            add_virtual_loss(branch)
            tried.append(branch)
            if all(branch[-1] is not other[-1] for other in branches):
                branches.append(branch)
        return branches, tried

    async def _expanded(self, ctx: Context, number: int, branch: Sequence[Node]) -> list[Thought]:
        leaf = branch[-1]
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
            return {path.node: float(self._steps.solved([end])) for path, end in zip(paths, ends, strict=True)}
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
