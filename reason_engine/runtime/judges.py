"""Finds the verifier that a request names and the checker of the task that a question belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from pydantic import BaseModel, ValidationError

from reason_engine.contracts import (
    Bindable,
    Capabilities,
    Checker,
    Powers,
    ProcessVerifier,
    ReadsAlternatives,
    Site,
    TaskVerifier,
    Verifier,
)
from reason_engine.errors import RequestError
from reason_engine.profile import Profile
from reason_engine.runtime.run import Run
from reason_engine.types import Problem
from reason_engine.verifiers import verifiers

NONE = Powers()
STEPS = "process-rules"
"""The verifier of steps where neither request nor profile names one."""


REWARD = "reward-model"


class Judged(Protocol):
    """What a strategy says of its verifier."""

    @property
    def title(self) -> str: ...
    @property
    def judges_steps(self) -> bool: ...
    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None: ...


def checker_of(profile: Profile, problem: Problem) -> Checker | None:
    """The exact checker of the problem's task, where the model's profile knows the task."""
    found = profile.task_of(problem.asked)
    if found is None or found[0].checker is None:
        return None
    return _task_verifier(found[0].checker, found[1])


def verifier_of(
    name: str,
    params: Mapping[str, object],
    profile: Profile,
    problem: Problem,
    caps: Capabilities,
    param: str = "reasoning.verifier",
    powers: Powers = NONE,
) -> Verifier:
    """The verifier of that name, built from the request's params or, for a task's checker, from the question, and made
    ready for this model and engine. A reward model's own name stands for the verifier that reads it. `param`: the
    request's field that names it.

    Raises UnknownName, CapabilityMissing, or RequestError naming the param at fault.
    """
    if name not in verifiers and name in dict(caps.rewards):
        name, params = REWARD, {**params, "model": name}
    kind = verifiers.get(name, param=param)
    found = profile.task_of(problem.asked)
    if not params and found and found[0].checker == name:
        return cast(Verifier, _task_verifier(name, found[1]))
    try:
        made = cast(Verifier, cast(type[BaseModel], kind).model_validate(params))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join((f"{param}.params", *(str(part) for part in first["loc"])))
        raise RequestError(f"{where}: {first['msg']}", param=where) from None
    if not isinstance(made, Bindable):
        return made

    def build(other: str, its: Mapping[str, object], where: str) -> Verifier:
        return verifier_of(other, its, profile, problem, caps, where, powers)

    return made.bind(Site(profile, caps, problem, build, param, powers))


def appointed(run: Run, strategy: Judged) -> tuple[str, Verifier] | None:
    """The verifier that a strategy uses in this run, by name; None where it uses none.

    Raises what `verifier_of` raises, and RequestError where the strategy needs single steps judged and this one judges
    whole answers.
    """
    judge = strategy.judge_on(run.profile, checked=run.checker is not None)
    if judge is None:
        return None
    name, params = judge
    made = verifier_of(name, params, run.profile, run.problem, run.engine.caps, powers=run.powers)
    if strategy.judges_steps and not isinstance(made, ProcessVerifier):
        raise RequestError(
            f"strategy {strategy.title} needs a verifier that judges single steps; {name!r} judges whole answers. "
            f"These judge steps: {', '.join(step_judges())}",
            param="reasoning.verifier",
        )
    return name, made


def step_judges() -> list[str]:
    """The names of the verifiers that judge single steps."""
    return [name for name in verifiers if issubclass(verifiers.get(name), ProcessVerifier)]


def step_judge(profile: Profile) -> str | None:
    """The first of the profile's verifiers that judges single steps."""
    known = step_judges()
    return next((name for name in profile.verifiers if name in known), None)


def usual_step_judge(profile: Profile) -> str:
    """The verifier of steps where a request names none. Raises RequestError where there is none."""
    known = step_judges()
    name = step_judge(profile) or (STEPS if STEPS in known else None)
    if name is None:
        raise RequestError(
            "this strategy needs a verifier that judges single steps, and neither the request nor the model's profile "
            f"names one; these judge steps: {', '.join(known) or 'none that is installed'}",
            param="reasoning.verifier",
        )
    return name


def alternatives_of(verifier: Verifier) -> int | None:
    """How many alternatives a token the paths must be drawn with; None where the verifier reads none."""
    return (verifier.alternatives or None) if isinstance(verifier, ReadsAlternatives) else None


def _task_verifier(name: str, groups: Mapping[str, str]) -> Checker:
    kind = verifiers.get(name)
    if not issubclass(kind, TaskVerifier):
        raise RequestError(
            f"{name!r} is named as a checker in the model's profile but is none", param="model"
        )
    return kind.from_groups(groups)
