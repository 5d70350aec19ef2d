"""The plans that can be followed on a question, and the best of them for what is left to spend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from reason_engine.policy import Measure, Plan, Stage, pick
from reason_engine.strategies import Strategy


@dataclass(frozen=True)
class RunnablePlan:
    """A plan that can be followed, with its strategies built."""

    plan: Plan
    strategies: tuple[Strategy, ...]

    @property
    def samples(self) -> int:
        """Sequences that its largest stage draws at once."""
        return max(strategy.width for strategy in self.strategies)

    @property
    def names(self) -> list[str]:
        """Its strategies, for the trace."""
        return [stage.strategy for stage in self.plan.stages]


@dataclass(frozen=True)
class PlanChoice:
    """The plans to choose from, cheapest first. `unit`: tokens that a price of 1 stands for. `direct`: expected length
    of a direct answer where it is known. `measure`: what the certainty of a single path is measured on."""

    plans: tuple[RunnablePlan, ...]
    unit: float
    direct: float | None = None
    measure: Measure = "text"

    def after(self, done: tuple[Stage, ...], tokens: float, samples: float = inf) -> RunnablePlan | None:
        """The best plan that goes on from these stages, for no more than `tokens` from the beginning and `samples` at
        once."""
        begun = len(done)
        found = [
            one
            for one in self.plans
            if one.plan.stages[:begun] == done and len(one.plan.stages) > begun and one.samples <= samples
        ]
        best = pick([one.plan for one in found], tokens / self.unit)
        return next((one for one in found if one.plan is best), None)

    def measured(self, tokens: int) -> PlanChoice:
        """The choice once a direct answer was drawn: what one costs is known by then."""
        if self.direct is not None:
            return self
        length = float(max(1, tokens))
        return replace(self, unit=length, direct=length)
