"""What `auto` can choose from: the plans that can be followed here, their strategies built, and the best of them for
what may be spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from pydantic import ValidationError

from reason_engine.errors import RequestError
from reason_engine.policy import Plan, Stage, case_of, pick
from reason_engine.runtime.context import Context
from reason_engine.runtime.nest import admitted
from reason_engine.runtime.run import Run
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies._policy import GUESS, features_of, usual_plans, valid_policy


@dataclass(frozen=True)
class Way:
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
class Menu:
    """The ways to choose from, cheapest first. `unit`: tokens that a price of 1 stands for. `direct`: expected length
    of a direct answer where it is known."""

    ways: tuple[Way, ...]
    unit: float
    direct: float | None = None

    def after(self, done: tuple[Stage, ...], tokens: float, samples: float = inf) -> Way | None:
        """The best way that goes on from these stages, for no more than `tokens` from the beginning and `samples` at
        once."""
        found = [way for way in self.ways if _begins(way.plan, done) and way.samples <= samples]
        plan = pick([way.plan for way in found], tokens / self.unit)
        return next((way for way in found if way.plan is plan), None)

    def measured(self, tokens: int) -> Menu:
        """The menu once a direct answer was drawn: what one costs is known by then."""
        if self.direct is not None:
            return self
        length = float(max(1, tokens))
        return replace(self, unit=length, direct=length)


def menu_of(ctx: Context, extra: Mapping[str, Any], width: int) -> Menu:
    """Every plan that can be followed here; where they come from, and why some cannot, is noted. `extra`: what the
    request says for whatever strategy is chosen; `width`: most paths at once."""
    run, features = ctx.run, features_of(ctx.run)
    policy, origin = valid_policy(run)
    named = extra.get("verifier") is not None
    case = case_of(policy, features) if policy and not named else None
    if policy and not case:
        origin = "usual plans: the policy was not fitted to such a request"
    ctx.note(question={"task": features.task, "words": features.words, "form": features.form}, policy=origin)
    if case:
        ctx.note(case=case.label)
        if ways := _ways(ctx, case.plans, extra, width):
            return Menu(ways, 1.0, case.direct_tokens)
    by_verifier = Stage(strategy="best-of-n", fields={"n": min(16, width)}) if named else None
    return Menu(_ways(ctx, usual_plans(run, by_verifier), extra, width), GUESS)


def _ways(ctx: Context, plans: Sequence[Plan], extra: Mapping[str, Any], width: int) -> tuple[Way, ...]:
    found: list[Way] = []
    left_out: list[str] = []
    for plan in plans:
        built = able(ctx.run, plan, extra, width)
        if isinstance(built, str):
            left_out.append(built)
        else:
            found.append(Way(plan, tuple(built)))
    if left_out:
        ctx.note(left_out=[*ctx.place.notes.get("left_out", ()), *left_out])
    return tuple(found)


def able(run: Run, plan: Plan, extra: Mapping[str, Any], width: int) -> list[Strategy] | str:
    """The strategies of a plan, with the request's own fields laid over them; or why it cannot be followed here."""
    built: list[Strategy] = []
    for stage in plan.stages:
        try:
            kind = strategies.get(stage.strategy)
            strategy = kind.model_validate({**stage.fields, **extra})
            admitted(run, strategy)
        except ValidationError as error:
            first = error.errors()[0]
            return f"{stage.strategy}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        except RequestError as error:
            return f"{stage.strategy}: {error}"
        if strategy.name == "auto":
            return "auto cannot be a stage of itself"
        if strategy.width > width:
            return f"{stage.strategy}: {strategy.width} paths at once, where {width} are allowed"
        single = strategy.width == 1 and strategy.judge is None
        if stage.accept is not None and single and run.engine.caps.logprobs < 0:
            return f"{stage.strategy}: how sure it is cannot be told without log-probabilities"
        built.append(strategy)
    return built


def _begins(plan: Plan, done: tuple[Stage, ...]) -> bool:
    return plan.stages[: len(done)] == done and len(plan.stages) > len(done)
