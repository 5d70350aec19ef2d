"""Finds the verifier that a request names and the checker of the task that a question belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel, ValidationError

from reason_engine.contracts import Checker, TaskVerifier, Verifier
from reason_engine.errors import RequestError
from reason_engine.profile import Profile
from reason_engine.types import Problem
from reason_engine.verifiers import verifiers


def checker_of(profile: Profile, problem: Problem) -> Checker | None:
    """The exact checker of the problem's task, where the model's profile knows the task."""
    found = profile.task_of(problem.question)
    if found is None:
        return None
    task, groups = found
    return _task_verifier(task.checker, groups)


def verifier_of(name: str, params: Mapping[str, object], profile: Profile, problem: Problem) -> Verifier:
    """The verifier of that name, built from the request's params or, for a task's checker, from the question.

    Raises UnknownName, or RequestError naming the param at fault.
    """
    kind = verifiers.get(name, param="reasoning.verifier")
    found = profile.task_of(problem.question)
    if not params and found and found[0].checker == name:
        return cast(Verifier, _task_verifier(name, found[1]))
    try:
        return cast(Verifier, cast(type[BaseModel], kind).model_validate(params))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("reasoning.verifier.params", *(str(part) for part in first["loc"])))
        raise RequestError(f"{where}: {first['msg']}", param=where) from None


def _task_verifier(name: str, groups: Mapping[str, str]) -> Checker:
    kind = verifiers.get(name)
    if not issubclass(kind, TaskVerifier):
        raise RequestError(
            f"{name!r} is named as a checker in the model's profile but is none", param="model"
        )
    return kind.from_groups(groups)
