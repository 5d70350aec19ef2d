"""Monte Carlo tree search over steps: UCT with a language model as policy.

Kocsis and Szepesvari 2006 (UCT) over a tree whose edges are steps of a solution, as in RAP, Hao et al. 2023,
arXiv:2305.14992, section 3.3. A simulation goes down by upper confidence bounds (`search/uct.py`), draws k steps from
where it ends (expansion), values them, and adds the best of these values to every node on its branch (backup).
`parallel` simulations go down one after the other, each under the virtual losses of those before (Chaslot, Winands and
van den Herik 2008, section 3.3, with the workers of one round in place of threads), and are expanded together, batched
in the engine.

    value of a state: by a process verifier; by the model's own judgement of the value prompt; or by playouts
    (`rollout`): taken to its end in one go, the end judged by a checker, else by the verifier

Departures: the evaluation of a new state is its first visit; a backup is the best child's value, as the step that a
greedy simulation would take first; states that ended are not visited again; equal states below one node are one; a node
is expanded again as its visits grow (progressive widening), and where all that follows it has ended. Where the profile
knows the task, its checker drops illegal lines and a right answer ends the search. Fewer simulations run together where
time is short, and the search ends in time to take states to their ends; where the model's values tell it nothing, whole
paths vote instead.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.errors import BudgetExhausted
from reason_engine.profile import Profile
from reason_engine.runtime.context import Context
from reason_engine.runtime.verify import usual_step_judge
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.search.choosing import Choose, choose_answer, final_answer, finished, vote_settled
from reason_engine.strategies.search.playouts import Playouts
from reason_engine.strategies.search.simulations import Simulations
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought
from reason_engine.strategies.search.uct import puct, ucb1
from reason_engine.strategies.search.values import Values
from reason_engine.strategies.search.whole import vote_instead
from reason_engine.strategies.voting.settle import Certainty, Rule
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
    depth: int = Field(40, ge=1, le=256, description="most steps of a solution, its answer line included")
    select: Literal["ucb", "puct"] = Field("ucb", description="the bound that leads down the tree")
    exploration: float = Field(1.0, ge=0, le=100, description="c of the bound: weight of what is little visited")
    widening: float = Field(0.5, ge=0, le=1, description="how fast a visited state gains more steps; 0: never")
    evaluate: Literal["value", "verifier", "rollout"] | None = Field(
        None, description="what values states; unset: the model where a checker knows the task, else rollouts"
    )
    aggregate: Aggregate = Field("min", description="verifier: how the scores of several steps become one")
    choose: Choose = Field("vote", description="vote weighted by value, or the finished path of highest value")
    adaptive: bool = Field(False, description="vote: stop when the vote is settled")
    confidence: Certainty = None
    step_tokens: int = Field(256, ge=1, le=4096, description="most tokens of one step")
    inside_thoughts: bool = Field(False, description="search inside the thought of a model that thinks by itself")
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
        steps = Steps(
            ctx,
            temperature=self.sampling_temperature(ctx),
            most=self.step_tokens,
            wanted=self.k,
            inside_thoughts=self.inside_thoughts,
        )
        search, plays = self._search(ctx, steps)
        most, answer, settled, spent, rounds = self.simulations or (PLAYED if plays else VALUED), Answer(), False, 0, 0
        try:
            while spent < most and not settled and not search.solved and not search.values.fault:
                together = search.together(min(self.parallel, most - spent))
                if not together or steps.late(search.values.furthest):
                    break
                rounds, before = rounds + 1, len(search.ends)
                async with ctx.span(f"round {rounds}") as here:
                    spent += await search.run(here, together)
                if len(search.ends) > before:
                    answer = await choose_answer(ctx, steps, search.ends, self.choose)
                voted = self.adaptive and self.choose == "vote"
                settled = voted and vote_settled(answer, (most - spent) * self.k, Rule.of(ctx.profile, self.confidence))
        except BudgetExhausted:
            if steps.checked or not search.ends:
                raise
        ctx.note(simulations=spent, first_steps=search.first_steps())
        final = await final_answer(ctx, steps, search.values.furthest, await self._ends(ctx, search), self.choose)
        return replace(final, decided=settled)

    async def _ends(self, ctx: Context, search: Simulations) -> list[Thought]:
        """The ends of the search; those of open states where there are none, or its values tell nothing of them."""
        steps, values = search.steps, search.values
        if values.fault:
            ctx.note(fallback=f"{values.fault}: whole paths vote")
            return await vote_instead(ctx, steps, search.open, search.ends, most=self.width, width=self.width)
        if search.ends or steps.checked:
            return search.ends
        return await finished(ctx, steps, values, search.open, self.k)

    def _search(self, ctx: Context, steps: Steps) -> tuple[Simulations, bool]:
        """The simulations, and whether their states are valued by playouts."""
        by = self.evaluate or ("value" if steps.checked and ctx.caps.choose else "rollout")
        ctx.note(evaluate=by, verifier=None if by == "value" else ctx.verifier_name or None)
        if by == "rollout":
            values = Playouts(steps)
        else:
            values = Values(ctx, steps, by, aggregate=self.aggregate, prompt=self.value_prompt)
        score = partial({"ucb": ucb1, "puct": puct}[self.select], c=self.exploration)
        search = Simulations(steps, values, score, k=self.k, depth=self.depth, widening=self.widening)
        return search, by == "rollout"
