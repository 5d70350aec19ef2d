"""Beam search over steps, guided by a verifier that judges steps.

Snell et al. 2024, arXiv:2408.03314, section 5.1 and appendix F: draw n first steps, score them, keep the best n / m,
draw m next steps from each of these, and so on until they end. `diverse` keeps the n / m beams apart: DVTS, in which
each of n / m subtrees keeps the best of its own m steps (Beeching, Tunstall and Rush 2024, "Scaling test-time compute
with open models").

    value of a beam = aggregate over t of s_t,   s_t the verifier's score of step t
    answer          = argmax_a sum_i [answer_i = a] value_i   (`vote`), or the beam of highest value (`best`)

Departures: equal states are one candidate; a beam that ends keeps its place, so that later levels draw fewer; beams of
the most steps are taken to their ends in one go; where the profile knows the task, its checker drops illegal lines and
a right answer ends the search. Under a deadline the first steps come in two draws, the first of which tells how fast
the machine is; fewer steps are drawn where time is short, and the search ends in time to finish its beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from reason_engine.errors import BudgetExhausted
from reason_engine.profile import Profile
from reason_engine.runtime.context import Context
from reason_engine.runtime.verify import usual_step_judge
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.search.choosing import Choose, choose_answer, final_answer, finished, vote_settled
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought, keep_best, merge
from reason_engine.strategies.search.values import Values
from reason_engine.strategies.voting.settle import Certainty, Rule
from reason_engine.types import Aggregate, Answer, Problem


@strategies.register("beam-search")
class BeamSearch(Strategy):
    """n beams of width m; the steps from one beam are one engine request, all beams run together."""

    summary: ClassVar[str] = "Beams over steps, guided by a verifier that judges steps"
    paper: ClassVar[str] = "arXiv:2408.03314"
    usual_temperature: ClassVar[float] = 0.8

    n: int = Field(16, ge=1, le=256, description="steps drawn at each level, over all beams")
    m: int = Field(4, ge=1, le=64, description="beam width: steps drawn from each beam that is kept; n / m are kept")
    diverse: bool = Field(False, description="n / m independent subtrees, each keeping its own best (DVTS)")
    depth: int = Field(40, ge=1, le=256, description="most steps of a solution, its answer line included")
    aggregate: Aggregate = Field("min", description="how the scores of a beam's steps become one")
    choose: Choose = Field("vote", description="vote weighted by value, or the beam of highest value")
    adaptive: bool = Field(False, description="vote: stop when no beam left could change it")
    confidence: Certainty = None
    step_tokens: int = Field(256, ge=1, le=4096, description="most tokens of one step")
    inside_thoughts: bool = Field(False, description="search inside the thought of a model that thinks by itself")

    @property
    def width(self) -> int:
        return max(self.n, self._kept * self.m)

    @property
    def judges_steps(self) -> bool:
        return True

    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None:
        return self.judge or (usual_step_judge(profile), {})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Draw, score, keep; the answer is chosen among the beams that ended."""
        steps = Steps(
            ctx,
            temperature=self.sampling_temperature(ctx),
            most=self.step_tokens,
            wanted=self._kept,
            inside_thoughts=self.inside_thoughts,
        )
        values = Values(ctx, steps, "verifier", aggregate=self.aggregate)
        rule = Rule.of(ctx.profile, self.confidence)
        ctx.note(verifier=ctx.verifier_name)
        beams, ends, places, settled = [Thought()], list[Thought](), self._kept, False
        for depth in range(1, self.depth + 1):
            if steps.late(*beams):
                break
            try:
                async with ctx.span(f"step {depth}") as here:
                    groups = await self._expanded(here, steps, beams, root=depth == 1)
                    valued = iter(await values.of(here, [thought for group in groups for thought in group]))
                    groups = [[found for _ in group if (found := next(valued))] for group in groups]
                    kept = self._best(groups, places)
                    done = [thought for group in groups for thought in group if thought.done]
                    here.note(kept=[[thought.steps[-1], round(thought.value, 4)] for thought in kept])
            except BudgetExhausted:
                if steps.checked or not ends:
                    raise
                break
            beams = [thought for thought in kept if not thought.done]
            places -= len(kept) - len(beams)
            ends += done
            if done:
                answer = await choose_answer(ctx, steps, ends, self.choose)
                voted = self.adaptive and self.choose == "vote"
                settled = voted and vote_settled(answer, len(beams) * self.m, rule)  # m a beam may follow
            if settled or not beams or steps.rules.solved(done):
                break
        if not settled and not steps.checked and beams:
            ends += await finished(ctx, steps, values, beams, places)
        return replace(await final_answer(ctx, steps, values.furthest, ends, self.choose), decided=settled)

    async def _expanded(
        self, ctx: Context, steps: Steps, beams: Sequence[Thought], *, root: bool
    ) -> list[list[Thought]]:
        """The children of all beams as groups of which some are kept: one group, or one for each subtree."""

        async def grow(beam: tuple[int, Thought]) -> list[Thought]:
            async with ctx.span(f"beam {beam[0]}") as here:
                first, k = self._first(here, steps, beam[1]) if root else None, steps.breadth(self.m, *beams)
                return merge(await (first or steps.grow(here, beam[1], k)))

        grown = [children or [] for children in await ctx.gather_within_budget(grow, list(enumerate(beams)))]
        if not self.diverse:
            return [merge([child for children in grown for child in children])]
        return [grown[0][i :: self._kept] for i in range(self._kept)] if root else grown

    async def _first(self, ctx: Context, steps: Steps, beginning: Thought) -> list[Thought]:
        """The first steps; under a deadline m of them show how many more there is time for."""
        if steps.checked or ctx.budget.seconds_left is None or self.n <= self.m:
            return await steps.grow(ctx, beginning, self.n)
        grown = await steps.grow(ctx, beginning, self.m)
        kept = self._kept
        if steps.late(*grown) or not (more := steps.breadth(self.m, *[beginning] * kept) * kept - self.m) > 0:
            return grown
        return [*grown, *await steps.grow(ctx, beginning, more)]

    @property
    def _kept(self) -> int:
        return max(1, self.n // self.m)

    def _best(self, groups: Sequence[Sequence[Thought]], places: int) -> list[Thought]:
        if self.diverse:
            return [keep_best(group, 1)[0] for group in groups if group]
        return keep_best(groups[0], places)
