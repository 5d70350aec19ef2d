"""Auto: choose strategy and size for the question at hand, by the model's own measured curves, within the budget.

Compute-optimal scaling (Snell et al. 2024, arXiv:2408.03314, section 3.2: per level of difficulty the strategy that is
best at a given price) by a cascade: difficulty is told by the question's features first, then by how sure a cheap stage
is of its answer (Aggarwal et al. 2023, arXiv:2305.11860: stop once the answers agree).
Departures: difficulty is not predicted by a model of its own; what a stage drew is not drawn again by the next one.

A plan that the budget cannot pay for is not begun; `effort` is a budget in direct answers. `effort` never cuts the
direct answer itself. Where two stages in a row find no answer to compare, the question is an open one and the first
text stands. Where no calibrated policy fits, the usual plans hold, their price in direct answers:

    a question of a task with a checker     16: tree-of-thoughts    4: best of 4 by the checker    1: direct
    any other       64, 16: direct, three paths, a vote that stops early    4: direct, three paths    2: direct, steps

The certainty of an answer is 1 or 0 where the question's task has a checker, else the strategy's own (the share of the
votes, the verifier's score); of a single path it is the probability of its whole text, exp of the sum of its tokens'
log-probabilities: close to 1 only where nothing else was likely to be said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError

from reason_engine.contracts import Checker
from reason_engine.errors import RequestError
from reason_engine.policy import Features, Plan, Policy, Stage, case_of, pick, weights_of
from reason_engine.runtime.context import Context
from reason_engine.runtime.drawn import PathCache
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.self_consistency import CERTAIN
from reason_engine.types import Answer, Path, Problem


@strategies.register("auto")
class Auto(Strategy):
    """Tries what the policy says, stage by stage, until one is sure enough."""

    summary: ClassVar[str] = "Chooses strategy and size by the question, the model's calibration and the budget"
    paper: ClassVar[str] = "arXiv:2408.03314"

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="at most 1, 1, 2, 4, 16, 64, 64 times the tokens of a direct answer"
    )
    n: int = Field(16, ge=1, le=256, description="most paths at once")

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Follow the best plan that can be paid for; after each stage that is not sure, the best one from there on."""
        common = {key: getattr(self, key) for key in set(Strategy.model_fields) & self.model_fields_set}
        choice, cache = plan_choice(ctx, common, self.n), PathCache[Path]()
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
                sure = certainty(answer, ctx.checker)
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
    of a direct answer where it is known."""

    plans: tuple[RunnablePlan, ...]
    unit: float
    direct: float | None = None

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


def plan_choice(ctx: Context, extra: Mapping[str, Any], width: int) -> PlanChoice:
    """Every plan that can be followed here; where they come from, and why some cannot, is noted. `extra`: what the
    request says for whatever strategy is chosen; `width`: most paths at once."""
    features = features_of(ctx)
    policy, origin = valid_policy(ctx)
    named = extra.get("verifier") is not None
    case = case_of(policy, features) if policy and not named else None
    if policy and not case:
        origin = "usual plans: the policy was not fitted to such a request"
    ctx.note(question={"task": features.task, "words": features.words, "form": features.form}, policy=origin)
    if case:
        ctx.note(case=case.label)
        if runnable := _runnable(ctx, case.plans, extra, width):
            return PlanChoice(runnable, 1.0, case.direct_tokens)
    by_verifier = Stage(strategy="best-of-n", fields={"n": min(16, width)}) if named else None
    return PlanChoice(_runnable(ctx, usual_plans(ctx, by_verifier), extra, width), TYPICAL_DIRECT)


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


EFFORT_PRICES = {"none": 1, "minimal": 1, "low": 2, "medium": 4, "high": 16, "xhigh": 64, "max": 64}
"""What an effort may cost, in direct answers."""
TYPICAL_DIRECT = 64
"""Tokens of a direct answer where nothing is known of its length."""
SURE_DIRECT = 0.8
"""A direct answer of that probability stands where nothing was calibrated."""


def features_of(ctx: Context) -> Features:
    """What is known of the question before a token is generated."""
    problem = ctx.problem
    found = ctx.profile.task_of(problem.asked)
    form = "tools" if problem.tools else "text" if problem.structured is None else "json"
    return Features(found[0].task if found else None, len(problem.asked.split()), form)


def valid_policy(ctx: Context) -> tuple[Policy | None, str]:
    """The profile's policy where it was made for these weights, and in a word where the plans come from."""
    policy, weights = ctx.profile.auto, weights_of(ctx.info.fingerprint, ctx.run.adapter)
    if policy is None:
        return None, "usual plans: the model's profile has no calibrated policy"
    if policy.weights != weights:
        return None, f"usual plans: the profile's policy is of other weights ({policy.weights}, not {weights})"
    return policy, "calibrated"


def usual_plans(ctx: Context, verifier: Stage | None) -> list[Plan]:
    """Plans for a model that was not calibrated, cheapest first, priced in direct answers. `verifier`: what to do by
    the verifier that the request names."""
    direct, few = Stage(strategy="direct"), Stage(strategy="self-consistency", fields={"n": 3})
    if verifier:
        return [_plan(1, direct), _plan(16, verifier)]
    if ctx.checker and not ctx.problem.tools and (task := ctx.profile.task_of(ctx.problem.asked)):
        best = {"verifier": task[0].checker}
        return [
            _plan(1, direct),
            _plan(4, Stage(strategy="best-of-n", fields={"n": 4, **best})),
            _plan(16, Stage(strategy="best-of-n", fields={"n": 16, **best})),
            _plan(16, Stage(strategy="tree-of-thoughts")),
        ]
    first = Stage(strategy="direct", accept=SURE_DIRECT)
    agreed = few.model_copy(update={"accept": 1.0})

    def vote(n: int, confidence: float) -> Stage:
        fields = {"n": n, "adaptive": True, "confidence": confidence}
        return Stage(strategy="self-consistency", fields=fields)

    return [
        _plan(1, direct),
        _plan(2, first, Stage(strategy="chain-of-thought")),
        _plan(4, first, few),
        _plan(16, first, agreed, vote(15, CERTAIN)),
        _plan(64, first, agreed, vote(63, 0.95)),
    ]


def certainty(answer: Answer, checker: Checker | None = None) -> float:
    """How sure an answer is, in [0, 1]; 0 where there is none."""
    if answer.path is None or not answer.path.finished:
        return 0.0
    if checker:
        return float(answer.value is not None and checker.solved(answer.value))
    if answer.confidence is not None:
        return min(1.0, max(0.0, answer.confidence))
    return math.exp(min(0.0, sum(token.logprob for token in answer.path.logprobs))) if answer.path.logprobs else 0.0


def _plan(times: float, *stages: Stage) -> Plan:
    return Plan(stages=stages, tokens=times)
