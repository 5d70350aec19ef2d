"""Auto: choose strategy and size for the question at hand, by the model's own measured curves, within the budget.

Compute-optimal scaling (Snell et al. 2024, arXiv:2408.03314, section 3.2: per level of difficulty the strategy that is
best at a given price) by a cascade: difficulty is told by the question's features first, then by how sure a cheap stage
is of its answer (Aggarwal et al. 2023, arXiv:2305.11860: stop once the answers agree).
Departures: difficulty is not predicted by a model of its own; what a stage drew is not drawn again by the next one.

Where no calibrated policy fits, and the question is of no task with a checker, only agreement tells whether an answer
stands (`agreement.py`). A plan that the budget cannot pay for is not begun. `effort` is a budget in direct answers,
without a calibration in paths, and never cuts the direct answer itself. Where two stages in a row find no answer to
compare, the question is an open one and the first text stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.policy import Stage
from reason_engine.runtime.context import Context
from reason_engine.runtime.drawn import PathCache
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.auto.agreement import by_agreement
from reason_engine.strategies.auto.certainty import certainty
from reason_engine.strategies.auto.choice import PlanChoice, RunnablePlan
from reason_engine.strategies.auto.features import EFFORT_PRICES
from reason_engine.strategies.auto.plans import TYPICAL_DIRECT, plan_choice
from reason_engine.types import Answer, Path, Problem


@strategies.register("auto")
class Auto(Strategy):
    """Tries what the policy says, stage by stage, until one is sure enough."""

    summary: ClassVar[str] = "Chooses strategy and size by the question, the model's calibration and the budget"
    paper: ClassVar[str] = "arXiv:2408.03314"

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None,
        description="at most 1, 1, 2, 4, 16, 64, 64 times the tokens of a direct answer; uncalibrated: 1, 1, 1, 4, 16, "
        "64, 64 paths",
    )
    n: int = Field(16, ge=1, le=256, description="most paths at once")

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """The best plan that can be paid for, else agreement among paths."""
        common = {key: getattr(self, key) for key in set(Strategy.model_fields) & self.model_fields_set}
        choice = plan_choice(ctx, common, self.n, inf if self.effort is None else EFFORT_PRICES[self.effort])
        if choice is None:
            return await by_agreement(problem, ctx, common, self.effort, self.n)
        return await self._follow(problem, ctx, choice)

    async def _follow(self, problem: Problem, ctx: Context, choice: PlanChoice) -> Answer:
        """Stage by stage; after each that is not sure, the best plan from there on."""
        cache = PathCache[Path]()
        done, answers = tuple[Stage, ...](), list[Answer]()
        chosen = self._next(ctx, choice, done) or choice.plans[0]
        ctx.note(plan=chosen.names)
        while chosen:
            number = len(done)
            stage, strategy = chosen.plan.stages[number], chosen.strategies[number]
            if self.effort and choice.direct and stage.strategy != "direct":
                ctx.budget.bound(max(1, int(EFFORT_PRICES[self.effort] * choice.direct)))
            alone = len(chosen.plan.stages) == 1
            async with ctx.nested(f"{number + 1} {stage.strategy}", strategy, cache, live=alone) as here:
                answer = await strategy.run(problem, here)
                sure = certainty(answer, ctx.checker, choice.measure)
                here.note(fields=dict(stage.fields), certainty=round(sure, 4), accept=stage.accept)
            answers.append(answer)
            done = (*done, stage)
            if number == 0 and stage.strategy == "direct" and answer.path:
                choice = choice.measured(answer.path.tokens)
            unanswered = number > 0 and all(answer.value is None for answer in answers[-2:])
            if stage.accept is None or sure >= stage.accept or unanswered:
                break
            ctx.set_fallback(_best(answers))
            chosen = self._next(ctx, choice, done)
        return _best(answers)

    def _next(self, ctx: Context, choice: PlanChoice, done: tuple[Stage, ...]) -> RunnablePlan | None:
        """The best plan from here on that the effort and what is left of the budget pay for."""
        budget = ctx.budget
        effort = inf if self.effort is None else EFFORT_PRICES[self.effort] * (choice.direct or TYPICAL_DIRECT)
        wanted = choice.after(done, effort)
        tokens = inf if budget.free is None else budget.free + budget.own
        samples = inf if budget.limits.samples is None else budget.limits.samples - budget.samples
        paid = choice.after(done, min(effort, tokens), samples)
        if paid is not wanted:
            budget.note("budget-tokens" if choice.after(done, effort, samples) is wanted else "budget-samples")
            ctx.note(budget=f"a better plan needs more than the budget leaves: {wanted and wanted.names}")
        return paid


def _best(answers: Sequence[Answer]) -> Answer:
    """The latest answer with a value, else the first with a text."""
    texts = [answer for answer in answers if answer.path]
    valued = [answer for answer in texts if answer.value is not None]
    return (valued[-1:] or texts[:1] or list(answers[-1:]))[0]
