"""What is known of a question before a token is generated, what an effort may cost, and which policy holds here."""

from __future__ import annotations

from reason_engine.policy import Features, Policy, weights_of
from reason_engine.runtime.context import Context

EFFORT_PRICES = {"none": 1, "minimal": 1, "low": 2, "medium": 4, "high": 16, "xhigh": 64, "max": 64}
"""What an effort may cost, in direct answers."""


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
        return None, "uncalibrated: the model's profile has no calibrated policy"
    if policy.weights != weights:
        return None, f"uncalibrated: the profile's policy is of other weights ({policy.weights}, not {weights})"
    return policy, "calibrated"
