"""Checks before a token is spent that a strategy can run, finds its verifier and checker, and lets them judge.

A verifier that crashes, hangs or returns nonsense ends the path it judged, not the request. It is asked for all paths
at once; where that fails each path is judged by itself, so that the failure stays with the path that caused it. A call
gets SECONDS, and never more than the request has left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from pydantic import BaseModel, ValidationError

from reason_engine.contracts import (
    Bindable,
    Call,
    Capabilities,
    Checker,
    Powers,
    ProcessVerifier,
    ReadsAlternatives,
    Site,
    TaskVerifier,
    Verifier,
)
from reason_engine.errors import (
    BudgetExhausted,
    CapabilityMissing,
    ContextLengthExceeded,
    EngineError,
    RequestError,
    VerifierError,
    first_error,
)
from reason_engine.profile import Profile
from reason_engine.runtime.run import Run
from reason_engine.runtime.trace import Scored
from reason_engine.types import DraftBy, Path, Problem, Score
from reason_engine.verifiers import verifiers

NONE = Powers()
STEPS = "process-rules"
"""The verifier of steps where neither request nor profile names one."""
REWARD = "reward-model"
"""The verifier that reads a reward model which is named in its place."""
SECONDS = 60.0
"""Longest that one call of a verifier may take."""

Result = TypeVar("Result")


class Requirements(Protocol):
    """What a strategy says of what it needs: engine capabilities, how tokens are drafted, a verifier."""

    @property
    def title(self) -> str: ...
    @property
    def wants(self) -> frozenset[str]: ...
    @property
    def drafter(self) -> DraftBy: ...
    @property
    def judges_steps(self) -> bool: ...
    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None: ...


@dataclass(frozen=True, slots=True)
class NamedVerifier:
    """The verifier of one strategy in a run, with the name it was asked for by."""

    name: str
    verifier: Verifier

    @property
    def alternatives(self) -> int | None:
        """How many alternatives a token the paths must be drawn with; None where the verifier reads none."""
        return (self.verifier.alternatives or None) if isinstance(self.verifier, ReadsAlternatives) else None


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


def check_capabilities(run: Run, strategy: Requirements) -> None:
    """Raises CapabilityMissing where the engine cannot do what the strategy needs."""
    caps = run.engine.caps
    known = {"choose": caps.choose, "continuation": caps.continuation, "score": caps.score}
    known["logprobs"] = caps.logprobs > 1
    for want in sorted(strategy.wants):
        if not known[want]:
            raise not_available(
                f"strategy {strategy.title} needs the capability {want!r}, which this engine has not; "
                "the embedded and the vllm engine have it"
            )
    if strategy.drafter not in ("default", *caps.drafting):
        offered = ", ".join(("default", *caps.drafting))
        raise not_available(
            f"this engine cannot draft by {strategy.drafter!r}; it offers: {offered}", "reasoning.draft"
        )


def not_available(message: str, param: str = "reasoning.strategy") -> CapabilityMissing:
    """The error for what a strategy needs and the engine has not."""
    return CapabilityMissing(message, param=param, code="strategy_not_available")


def resolve_verifier(run: Run, strategy: Requirements) -> NamedVerifier | None:
    """The verifier that a strategy uses in this run; None where it uses none.

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
    return NamedVerifier(name, made)


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


def _task_verifier(name: str, groups: Mapping[str, str]) -> Checker:
    kind = verifiers.get(name)
    if not issubclass(kind, TaskVerifier):
        raise RequestError(f"{name!r} is named as a checker in the model's profile but is none", param="model")
    return kind.from_groups(groups)


async def score(
    run: Run, chosen: NamedVerifier | None, call: Call, paths: Sequence[Path], seconds: float = SECONDS
) -> list[Score | None]:
    """The verifier's score of each path; None where it failed on it. Raises VerifierError if on all."""
    if chosen is None:
        raise RequestError(
            f"strategy {run.strategy} needs a verifier; name one in reasoning.verifier", param="reasoning.verifier"
        )
    if not paths:
        return []
    name, verifier = chosen.name, chosen.verifier

    async def together(some: Sequence[Path]) -> list[Score | None]:
        found = await _guarded(run, name, verifier.score(run.problem, some, call), seconds)
        if len(found) != len(some):
            raise VerifierError(f"verifier {name} gave {len(found)} scores for {len(some)} paths")
        return [judged if _usable(judged) else None for judged in found]

    try:
        scores = await together(paths)
    except VerifierError:
        if len(paths) == 1:
            raise
        scores = await _score_singly(together, paths)
    for path, judged in zip(paths, scores, strict=True):
        if judged:
            run.emit(Scored(path.node, judged.value, name, judged.detail, run.budget.seconds))
    if not any(scores):
        raise VerifierError(f"verifier {name} gave no usable score")
    return scores


async def score_steps(
    run: Run, chosen: NamedVerifier | None, call: Call, path: Path, seconds: float = SECONDS
) -> list[Score]:
    """The process verifier's score of each step. Raises RequestError where it judges whole answers only, VerifierError
    where it fails on this path."""
    if chosen is None or not isinstance(chosen.verifier, ProcessVerifier):
        raise RequestError(
            f"strategy {run.strategy} needs a verifier that judges steps; {chosen.name if chosen else 'none'} does not",
            param="reasoning.verifier",
        )
    work = chosen.verifier.score_steps(run.problem, path, call)
    scores = await _guarded(run, chosen.name, work, seconds)
    if not all(map(_usable, scores)):
        raise VerifierError(f"verifier {chosen.name} gave a step no usable score")
    return scores


async def _score_singly(
    score: Callable[[Sequence[Path]], Awaitable[list[Score | None]]], paths: Sequence[Path]
) -> list[Score | None]:
    async def one(path: Path) -> Score | VerifierError | None:
        try:
            return (await score([path]))[0]
        except VerifierError as error:
            return error

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(path)) for path in paths]
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    found = [task.result() for task in tasks]
    failed = next((one for one in found if isinstance(one, VerifierError)), None)
    if failed and not any(isinstance(one, Score) for one in found):
        raise VerifierError(f"{failed} (and so on every other path)") from failed
    return [one if isinstance(one, Score) else None for one in found]


async def _guarded(run: Run, name: str, work: Awaitable[Result], seconds: float) -> Result:
    """What a verifier gives, in time; its own failures as VerifierError, others' as they are."""
    left = math.inf if run.budget.seconds_left is None else run.budget.seconds_left
    limit = asyncio.timeout(max(0.0, min(seconds, left)))
    try:
        async with limit:
            return await work
    except Exception as error:  # a boundary: whatever a verifier's own code does wrong ends here
        cause = first_error(error)
        if limit.expired() and isinstance(cause, TimeoutError):
            if left <= seconds:
                raise run.budget.exhausted("budget-seconds") from None
            raise VerifierError(f"verifier {name}: no score within {seconds:g} s") from None
        if isinstance(cause, ContextLengthExceeded):
            raise VerifierError(f"verifier {name}: {cause}") from cause
        if isinstance(cause, BudgetExhausted | RequestError | EngineError):
            raise cause from None
        raise VerifierError(f"verifier {name}: {type(cause).__name__}: {cause}") from cause


def _usable(score: object) -> bool:
    return isinstance(score, Score) and isinstance(score.value, int | float) and math.isfinite(score.value)  # pyright: ignore[reportUnnecessaryIsInstance]
