"""Decides for `auto`, without sampling: what is known of a question, which plans there are, how sure an answer is.

Where no calibrated policy fits, the usual plans hold, their price in direct answers:

    a question of a task with a checker     16: tree-of-thoughts    4: best of 4 by the checker    1: direct
    any other       64, 16: direct, three paths, a vote that stops early    4: direct, three paths    2: direct, steps

The certainty of an answer is 1 or 0 where the question's task has a checker, else the strategy's own (the share of the
votes, the verifier's score); of a single path it is the probability of its whole text, exp of the sum of its tokens'
log-probabilities: close to 1 only where nothing else was likely to be said.
"""

from __future__ import annotations

import math

from reason_engine.contracts import Checker
from reason_engine.policy import Features, Plan, Policy, Stage, weights_of
from reason_engine.runtime.run import Run
from reason_engine.strategies._votes import CERTAIN
from reason_engine.types import Answer

TIMES = {"none": 1, "minimal": 1, "low": 2, "medium": 4, "high": 16, "xhigh": 64, "max": 64}
"""What an effort may cost, in direct answers."""
GUESS = 64
"""Tokens of a direct answer where nothing is known of its length."""
SURE = 0.8
"""A direct answer of that probability stands where nothing was calibrated."""


def features_of(run: Run) -> Features:
    """What is known of the question before a token is generated."""
    problem = run.problem
    found = run.profile.task_of(problem.asked)
    form = "tools" if problem.tools else "text" if problem.structured is None else "json"
    return Features(found[0].task if found else None, len(problem.asked.split()), form)


def valid_policy(run: Run) -> tuple[Policy | None, str]:
    """The profile's policy where it was made for these weights, and in a word where the plans come from."""
    policy, weights = run.profile.auto, weights_of(run.engine.info.fingerprint, run.adapter)
    if policy is None:
        return None, "usual plans: the model's profile has no calibrated policy"
    if policy.weights != weights:
        return (
            None,
            f"usual plans: the profile's policy is of other weights ({policy.weights}, not {weights})",
        )
    return policy, "calibrated"


def usual_plans(run: Run, verifier: Stage | None) -> list[Plan]:
    """Plans for a model that was not calibrated, cheapest first, priced in direct answers. `verifier`: what to do by
    the verifier that the request names."""
    direct, few = Stage(strategy="direct"), Stage(strategy="self-consistency", fields={"n": 3})
    if verifier:
        return [_plan(1, direct), _plan(16, verifier)]
    if run.checker and not run.problem.tools and (task := run.profile.task_of(run.problem.asked)):
        best = {"verifier": task[0].checker}
        return [
            _plan(1, direct),
            _plan(4, Stage(strategy="best-of-n", fields={"n": 4, **best})),
            _plan(16, Stage(strategy="best-of-n", fields={"n": 16, **best})),
            _plan(16, Stage(strategy="tree-of-thoughts")),
        ]
    first = Stage(strategy="direct", accept=SURE)
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
    return (
        math.exp(min(0.0, sum(token.logprob for token in answer.path.logprobs)))
        if answer.path.logprobs
        else 0.0
    )


def _plan(times: float, *stages: Stage) -> Plan:
    return Plan(stages=stages, tokens=times)
