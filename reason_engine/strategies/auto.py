"""Auto: choose strategy and size for the question at hand, by the model's own measured curves, within the budget.

Compute-optimal scaling (Snell et al. 2024, arXiv:2408.03314, section 3.2: per level of difficulty the strategy that is
best at a given price) by a cascade: difficulty is told by the question's features first, then by how sure a cheap stage
is of its answer (Aggarwal et al. 2023, arXiv:2305.11860: stop once the answers agree).
Departures: difficulty is not predicted by a model of its own; what a stage drew is not drawn again by the next one.

A plan that the budget cannot pay for is not begun; `effort` is a budget in direct answers. `effort` never cuts the
direct answer itself. Where two stages in a row find no answer to compare, the question is an open one and the first
text stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar, Literal

from pydantic import Field

from reason_engine.policy import Stage
from reason_engine.runtime.context import Context
from reason_engine.runtime.nest import Stock, inner, standby
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies._menu import Menu, Way, menu_of
from reason_engine.strategies._policy import GUESS, TIMES, certainty
from reason_engine.types import Answer, Problem


@strategies.register("auto")
class Auto(Strategy):
    """Tries what the policy says, stage by stage, until one is sure enough."""

    summary: ClassVar[str] = (
        "Chooses strategy and size by the question, the model's calibration and the budget"
    )
    paper: ClassVar[str] = "arXiv:2408.03314"

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="at most 1, 1, 2, 4, 16, 64, 64 times the tokens of a direct answer"
    )
    n: int = Field(16, ge=1, le=256, description="most paths at once")

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Follow the best plan that can be paid for; after each stage that is not sure, the best way on from there."""
        menu, stock = menu_of(ctx, self._common(), self.n), Stock()
        done, answers = tuple[Stage, ...](), list[Answer]()
        way = self._next(ctx, menu, done) or menu.ways[0]
        ctx.note(plan=way.names)
        while way:
            number = len(done)
            stage, strategy = way.plan.stages[number], way.strategies[number]
            if menu.direct and stage.strategy != "direct":
                self._bound(ctx, menu.direct)
            alone = len(way.plan.stages) == 1
            async with inner(ctx, f"{number + 1} {stage.strategy}", strategy, stock, live=alone) as here:
                answer = await strategy.run(problem, here)
                sure = certainty(answer, ctx.run.checker)
                here.note(fields=dict(stage.fields), certainty=round(sure, 4), accept=stage.accept)
            answers.append(answer)
            done = (*done, stage)
            if number == 0 and stage.strategy == "direct" and answer.path:
                menu = menu.measured(answer.path.tokens)
            if stage.accept is None or sure >= stage.accept or _open(answers):
                break
            standby(ctx, _best(answers))
            way = self._next(ctx, menu, done)
        return _best(answers)

    def _next(self, ctx: Context, menu: Menu, done: tuple[Stage, ...]) -> Way | None:
        """The best way on from here that the effort and what is left of the budget pay for."""
        budget = ctx.run.budget
        effort = inf if self.effort is None else TIMES[self.effort] * (menu.direct or GUESS)
        wanted = menu.after(done, effort)
        tokens = inf if budget.free is None else budget.free + budget.own
        samples = inf if budget.limits.samples is None else budget.limits.samples - budget.samples
        way = menu.after(done, min(effort, tokens), samples)
        if way is not wanted:
            budget.note("budget-tokens" if menu.after(done, effort, samples) is wanted else "budget-samples")
            ctx.note(budget=f"a better plan needs more than the budget leaves: {wanted and wanted.names}")
        return way

    def _bound(self, ctx: Context, direct: float) -> None:
        if self.effort is not None:
            ctx.run.budget.bound(max(1, int(TIMES[self.effort] * direct)))

    def _common(self) -> dict[str, Any]:
        """What the request says for whatever strategy is chosen."""
        return {key: getattr(self, key) for key in set(Strategy.model_fields) & self.model_fields_set}


def _open(answers: Sequence[Answer]) -> bool:
    return len(answers) > 1 and all(answer.value is None for answer in answers[-2:])


def _best(answers: Sequence[Answer]) -> Answer:
    """The latest answer with a value, else the first with a text."""
    valued = [answer for answer in answers if answer.path and answer.value is not None]
    texts = [answer for answer in answers if answer.path]
    return (valued[-1:] or texts[:1] or list(answers[-1:]))[0]
