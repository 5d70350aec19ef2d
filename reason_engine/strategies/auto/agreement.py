"""`auto` without a calibration: a few paths first, and more only while they disagree.

Adaptive-Consistency (Aggarwal et al. 2023, arXiv:2305.11860, section 3) with a first wave: nothing that was measured on
other models tells how hard a question is for this one, but agreement does.

    free text, tools, JSON, code that nobody may run, effort below medium     one path
    anything with a value      three paths by steps in one request (two of a model that thinks), then
        all equal, all read where an answer was asked for    stop; from effort `high` on, one by one up to the posterior
        most say something without a value                   the question is an open one: the most typical text
        split                                                waves until the lead is certain enough (`waves.py`) or the
                                                             budget is spent
        split after 16 paths, and a verifier is named        its weighted vote over the same paths

Departures: equal first paths settle it at a posterior of 0.94 (three) or 0.88 (two). The probability of a whole text
is no criterion, and no search is begun: both need what only a calibration or a checker knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reason_engine.errors import RequestError
from reason_engine.runtime.context import Context
from reason_engine.runtime.drawn import PathCache
from reason_engine.strategies import strategies
from reason_engine.strategies.auto.waves import FIRST_THOUGHTS, Waves
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Answer, Path, Problem

PATHS = {"none": 1, "minimal": 1, "low": 1, "medium": 4, "high": 16, "xhigh": 64, "max": 64}
"""Most paths by effort."""


async def by_agreement(
    problem: Problem, ctx: Context, common: Mapping[str, Any], effort: str | None, at_once: int
) -> Answer:
    """One path where agreement says nothing or is not paid for, else a vote. `common`: what the request says for
    whatever strategy is chosen; `at_once`: most paths of one wave."""
    most = at_once if effort is None else PATHS[effort]
    if name := single(ctx, effort, most):
        strategy = strategies.get(name).model_validate(common)
        ctx.note(plan=[name])
        async with ctx.nested(f"1 {name}", strategy, PathCache[Path](), live=True) as here:
            return await strategy.run(problem, here)
    judge = None if effort == "medium" else usual_judge(ctx, common)
    voters = SelfConsistency.model_validate({"verifier": judge, **common, "n": most})
    ctx.note(plan=["vote"])
    async with ctx.nested("1 vote", voters, PathCache[Path]()) as here:
        temperature = voters.sampling_temperature(here)
        return await Waves(here, most, at_once, temperature, effort in THOROUGH).answer()


def single(ctx: Context, effort: str | None, most: int) -> str | None:
    """The strategy of one path that is all this question gets; None where several paths are worth drawing."""
    kind = ctx.spec.kind
    open_ended = kind in ("free", "tool", "json") or (kind == "code" and ctx.run.powers.code is None)
    if open_ended or effort in ("none", "minimal"):
        return "direct"
    return "chain-of-thought" if most < FIRST_THOUGHTS else None


def usual_judge(ctx: Context, common: Mapping[str, Any]) -> str | None:
    """The first of the profile's verifiers that can judge here, where the request names none."""
    for name in ctx.profile.verifiers if common.get("verifier") is None else ():
        try:
            ctx.admit(SelfConsistency.model_validate({"verifier": name}))
        except RequestError as error:
            ctx.note(left_out=[*ctx.span_state.notes.get("left_out", ()), f"{name}: {error}"])
        else:
            return name
    return None


THOROUGH = frozenset({"high", "xhigh", "max"})
"""Efforts at which equal first paths are not enough."""
