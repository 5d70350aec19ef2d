"""Runs tasks times strategies and keeps every answer. Problem i has the same seed under every strategy, so that
strategies are compared in pairs; a run that was killed goes on where it stopped. Strategies run one after another:
between two runs of one problem lies a whole task, so that the engine's prefix cache favours none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.contracts import Task
from reason_engine.errors import ContextLengthExceeded, SetupError, first_error
from reason_engine.evals import tasks
from reason_engine.evals.record import Record, RecordFile
from reason_engine.evals.solvers import Reply, Solver
from reason_engine.evals.spec import Spec, build
from reason_engine.types import Problem


@dataclass(frozen=True, slots=True)
class Plan:
    """What is evaluated. `limit`: problems of each task; `data`: the folder of public sets; `texts`: whether records
    keep all that was said."""

    tasks: tuple[Spec, ...]
    strategies: tuple[Spec, ...]
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    concurrency: int = 4
    texts: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SetupError("limit must be at least 1")
        if self.concurrency < 1:
            raise SetupError("concurrency must be at least 1")


@dataclass(frozen=True, slots=True)
class Job:
    """One problem under one strategy."""

    task: Task
    task_label: str
    strategy: Spec
    problem: Problem

    def index(self) -> int:
        """The problem's place in its data set."""
        return self.problem.meta["index"]


def jobs(plan: Plan) -> list[Job]:
    """All of the plan, strategy by strategy. Raises SetupError for a task, key or data file that is wrong."""
    built = [(build(tasks, spec), spec.label) for spec in plan.tasks]
    problems = [(task, label, task.problems(plan.limit, plan.seed, plan.data)) for task, label in built]
    return [
        Job(task, label, strategy, problem)
        for task, label, found in problems
        for strategy in plan.strategies
        for problem in found
    ]


async def evaluate(
    plan: Plan,
    solver: Solver,
    equality: Equality,
    file: RecordFile,
    progress: Callable[[Record, int, int], None] = lambda record, done, total: None,
) -> list[Record]:
    """Every record of the plan, in its order, earlier runs' included. `progress` hears each new one.

    A problem that does not fit the model's context counts as wrong. Any other error ends the run; what is done is kept.
    """
    work = jobs(plan)
    known = file.load()
    keys = [(job.task_label, job.strategy.label, job.index(), plan.seed) for job in work]
    for job, key in zip(work, keys, strict=True):
        if key in known and known[key].question != job.problem.question:
            raise SetupError(
                f"{file.path} holds answers to other problems of {job.task_label!r}; choose another --out"
            )
    waiting = iter([(job, key) for job, key in zip(work, keys, strict=True) if key not in known])

    async def worker(queue: Iterator[tuple[Job, tuple[str, str, int, int]]]) -> None:
        for job, key in queue:
            record = await _one(job, plan, solver, equality)
            known[key] = record
            file.append(record)
            progress(record, len(known), len(work))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(worker(waiting))
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [known[key] for key in keys]


def seed_of(run_seed: int, index: int) -> int:
    """Seed of one problem: by place, so that neither order nor concurrency changes it."""
    return run_seed * 1_000_003 + index


async def _one(job: Job, plan: Plan, solver: Solver, equality: Equality) -> Record:
    error = None
    try:
        reply = await solver.answer(job.problem, job.strategy, seed_of(plan.seed, job.index()))
    except ContextLengthExceeded as refused:
        reply, error = Reply(None, "", 0, 0, 0.0, "done", 0), refused.message
    correct = error is None and await job.task.grade(job.problem, reply.answer, reply.text, equality)
    return Record(
        task=job.task_label,
        strategy=job.strategy.label,
        index=job.index(),
        seed=plan.seed,
        question=job.problem.question,
        answer=reply.answer,
        correct=correct,
        completion_tokens=reply.completion_tokens,
        internal_prompt_tokens=reply.prompt_tokens,
        seconds=round(reply.seconds, 4),
        stopped=reply.stopped,
        samples=reply.samples,
        error=error,
        part=job.problem.meta.get("part"),
        text=reply.text if plan.texts else None,
    )
