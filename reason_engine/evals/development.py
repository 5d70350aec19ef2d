"""Problems to choose settings on: never those of a test set."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from reason_engine.contracts import Task
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.spec import Spec, build
from reason_engine.types import Problem


@runtime_checkable
class Developed(Task, Protocol):
    """A task that has problems for development, drawn from other seeds or another split than its test problems."""

    def development(self, limit: int | None, seed: int) -> list[Problem]: ...


def developed(spec: Spec) -> Developed:
    """The task. Raises UnknownName, SetupError naming a key at fault, or that it has test problems only."""
    task = build(tasks, spec)
    if not isinstance(task, Developed):
        known = ", ".join(name for name in tasks if issubclass(tasks.get(name), Developed))
        raise SetupError(
            f"task {spec.name!r} has test problems only, and nothing is fitted to those; these have others: {known}"
        )
    return task
