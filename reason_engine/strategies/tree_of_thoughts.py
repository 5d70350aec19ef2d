"""Tree of thoughts: grow partial solutions step by step, value each state, follow the promising ones.

Yao et al. 2023, arXiv:2305.10601: thought generation by sampling or by one proposing prompt (section 3.2), evaluation
by value or by vote (3.3), breadth first or depth first with pruning and backtracking (3.4).
Departures: the value is the model's probability of `value_options[0]` against the other option at one token, not a
sampled word, and without a checker against what it says of nonsense; equal states are merged; where the profile knows
the task, its checker drops illegal lines and tells whether a finished answer is right (it never proposes or looks
ahead), and a right one ends the search; when nothing promising is left, depth first samples more steps from the best
state it has visited, until `visits` are spent. Without a checker nothing tells that an answer is right: the search goes
on until it has come to `candidates`, depth first each below another first step where there is one, and `choose` makes
one answer of them; where the model's values tell it nothing, whole paths vote instead. It ends in time to take its
furthest states to their ends.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.errors import BudgetExhausted
from reason_engine.profile import Profile
from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.search.choosing import Choose, final_answer, finished
from reason_engine.strategies.search.orders import Tree
from reason_engine.strategies.search.propose import propose
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought
from reason_engine.strategies.search.values import By, Values, verifier_for
from reason_engine.strategies.search.whole import vote_instead
from reason_engine.types import Aggregate, Answer, Problem

CHECKED, FREE = (8, 1, 16), (4, 4, 64)
"""k, breadth and visits where nothing is asked for: with a checker, and without."""
JUDGED = 8
"""k where a verifier of steps ranks them: its choice among many is what a search gains by."""


@strategies.register("tree-of-thoughts")
class TreeOfThoughts(Strategy):
    """Search over steps, next to the engine: every step continues on cached tokens."""

    summary: ClassVar[str] = "A search over steps that values partial solutions"
    paper: ClassVar[str] = "arXiv:2305.10601"
    usual_temperature: ClassVar[float] = 1.0

    search: Literal["breadth", "depth"] = Field("depth", description="breadth first, or depth first with backtracking")
    k: int | None = Field(
        None, ge=1, le=64, description="next steps from each state; unset: 8 with a checker or a verifier, else 4"
    )
    breadth: int | None = Field(
        None, ge=1, le=64, description="breadth first: states kept at each level; unset: 1 with a checker, else 4"
    )
    depth: int = Field(40, ge=1, le=64, description="most steps of a solution, its answer line included")
    visits: int | None = Field(
        None, ge=1, le=1024, description="depth first: most states to expand; unset: 16 with a checker, else 64"
    )
    candidates: int = Field(4, ge=1, le=64, description="without a checker: finished solutions to choose from")
    choose: Choose | None = Field(
        None,
        description="vote weighted by value, or the solution of highest value; unset: best by a verifier, else vote",
    )
    threshold: float = Field(0.05, ge=0, lt=1, description="depth first: states of lower value are pruned")
    generate: Literal["sample", "propose"] = Field("sample", description="sample steps, or ask for a list of them")
    evaluate: By | None = Field(
        None, description="what ranks states; unset: the named verifier of steps, else the model's value"
    )
    aggregate: Aggregate = Field("min", description="verifier: how the scores of several steps become one")
    step_tokens: int = Field(256, ge=1, le=4096, description="most tokens of one step")
    inside_thoughts: bool = Field(False, description="search inside the thought of a model that thinks by itself")
    propose_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {state}")
    value_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {state}")

    @property
    def width(self) -> int:
        shapes = self._shape(True, judged=False), self._shape(False, judged=True)
        return max(self.candidates, *map(self._beside, shapes))

    @property
    def wants(self) -> frozenset[str]:
        by_model = self.evaluate == "value" or (self.evaluate is None and self.verifier is None)
        return frozenset({"choose"} if by_model else ())

    @property
    def judges_steps(self) -> bool:
        return self.evaluate in (None, "verifier")

    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None:
        return verifier_for(self.evaluate, self.judge, profile, checked=checked)

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Search until there are ends enough; one answer is made of them."""
        wanted = 1 if ctx.checker else self.candidates
        shape = self._shape(ctx.checker is not None, judged=ctx.verifier is not None)
        steps = Steps(
            ctx,
            temperature=self.sampling_temperature(ctx),
            most=self.step_tokens,
            wanted=wanted,
            inside_thoughts=self.inside_thoughts,
        )
        by = self.evaluate or ("verifier" if ctx.verifier else "value")
        values = Values(ctx, steps, by, aggregate=self.aggregate, prompt=self.value_prompt, votes=shape[0])
        ctx.note(evaluate=by, verifier=ctx.verifier_name or None)
        k, breadth, visits = shape

        async def grow(here: Context, thought: Thought) -> list[Thought]:
            if self.generate == "propose":
                return await propose(here, steps, thought, k, self.propose_prompt)
            beside = tree.open if self.search == "breadth" else [thought]
            return await steps.grow(here, thought, steps.breadth(k, *beside))

        tree = Tree(grow, steps, values, self.depth, breadth, visits, self.threshold, self.candidates)
        try:
            await (tree.breadth_first if self.search == "breadth" else tree.depth_first)(ctx)
        except BudgetExhausted:
            if steps.checked or not tree.ends:
                raise
        ends = tree.ends
        if values.fault:
            ctx.note(fallback=f"{values.fault}: whole paths vote")
            most = wanted * shape[0]
            ends = await vote_instead(ctx, steps, tree.open, ends, most=most, width=self._beside(shape))
        elif not steps.checked and len(ends) < wanted:
            ends += await finished(ctx, steps, values, tree.open, wanted - len(ends))
        usual: Choose = "best" if by == "verifier" else "vote"
        choose = "best" if steps.checked else self.choose or usual
        return await final_answer(ctx, steps, values.furthest, ends, choose)

    def _shape(self, checked: bool, *, judged: bool) -> tuple[int, int, int]:
        k, breadth, visits = CHECKED if checked else FREE
        return self.k or (JUDGED if judged else k), self.breadth or breadth, self.visits or visits

    def _beside(self, shape: tuple[int, int, int]) -> int:
        return shape[0] * (shape[1] if self.search == "breadth" else 1)
