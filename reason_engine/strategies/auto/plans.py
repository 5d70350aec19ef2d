"""The plans that `auto` may follow on a question, and what they may cost: a calibrated policy's, or those that hold for
a task with a checker and for a verifier that the request names.

    a question of a task with a checker     16: tree-of-thoughts    4: best of 4 by the checker    1: direct
    a verifier named by the request         16: best of 16 by it    1: direct

Prices are in direct answers. A plan whose strategies cannot run here is left out, and the trace says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from pydantic import ValidationError

from reason_engine.errors import RequestError
from reason_engine.policy import Plan, Stage, case_of
from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.auto.choice import PlanChoice, RunnablePlan
from reason_engine.strategies.auto.features import features_of, valid_policy


def plan_choice(ctx: Context, extra: Mapping[str, Any], width: int, effort: float = inf) -> PlanChoice | None:
    """Every plan that can be followed here; where they come from, and why some cannot, is noted. None where nothing
    but agreement tells whether an answer stands. `extra`: what the request says for whatever strategy is chosen;
    `width`: most paths at once; `effort`: direct answers that may be spent."""
    features = features_of(ctx)
    policy, origin = valid_policy(ctx)
    named = extra.get("verifier") is not None
    case = case_of(policy, features) if policy and not named else None
    if policy and not case:
        origin = "uncalibrated: the policy was not fitted to such a request"
    asked = {"task": features.task, "words": features.words, "form": features.form, "kind": ctx.spec.kind}
    ctx.note(question=asked, policy=origin)
    if policy and case:
        ctx.note(case=case.label)
        if runnable := _runnable(ctx, case.plans, extra, width):
            return PlanChoice(runnable, 1.0, case.direct_tokens, policy.certainty)
    plans = checked_plans(ctx) if ctx.checker and not ctx.problem.tools else []
    if named and effort >= VERIFIED:
        best = Stage(strategy="best-of-n", fields={"n": min(VERIFIED, width)})
        plans = [_plan(1, Stage(strategy="direct")), _plan(VERIFIED, best)]
    runnable = _runnable(ctx, plans, extra, width)
    return PlanChoice(runnable, TYPICAL_DIRECT) if runnable else None


def _runnable(ctx: Context, plans: Sequence[Plan], extra: Mapping[str, Any], width: int) -> tuple[RunnablePlan, ...]:
    found: list[RunnablePlan] = []
    left_out: list[str] = []
    for plan in plans:
        built = build_strategies(ctx, plan, extra, width)
        if isinstance(built, str):
            left_out.append(built)
        else:
            found.append(RunnablePlan(plan, tuple(built)))
    if left_out:
        ctx.note(left_out=[*ctx.span_state.notes.get("left_out", ()), *left_out])
    return tuple(found)


def build_strategies(ctx: Context, plan: Plan, extra: Mapping[str, Any], width: int) -> list[Strategy] | str:
    """The strategies of a plan, with the request's own fields laid over them; or why it cannot be followed here."""
    built: list[Strategy] = []
    for stage in plan.stages:
        try:
            kind = strategies.get(stage.strategy)
            strategy = kind.model_validate({**stage.fields, **extra})
            ctx.admit(strategy)
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
        if stage.accept is not None and single and ctx.caps.logprobs < 0:
            return f"{stage.strategy}: how sure it is cannot be told without log-probabilities"
        built.append(strategy)
    return built


TYPICAL_DIRECT = 64
"""Tokens of a direct answer where nothing is known of its length."""
VERIFIED = 16
"""Paths among which a verifier that the request names chooses."""


def checked_plans(ctx: Context) -> list[Plan]:
    """Plans for a question of a task with a checker, cheapest first, priced in direct answers."""
    found = ctx.profile.task_of(ctx.problem.asked)
    best = {"verifier": found[0].checker if found else None}
    return [
        _plan(1, Stage(strategy="direct")),
        _plan(4, Stage(strategy="best-of-n", fields={"n": 4, **best})),
        _plan(16, Stage(strategy="best-of-n", fields={"n": 16, **best})),
        _plan(16, Stage(strategy="tree-of-thoughts")),
    ]


def _plan(times: float, *stages: Stage) -> Plan:
    return Plan(stages=stages, tokens=times)
