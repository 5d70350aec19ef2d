"""Runs tasks times strategies and keeps every answer, in `answers.jsonl` where it is given a file.

Problem i has the same seed under every strategy, so that strategies are compared in pairs; a run that was killed goes
on where it stopped. Strategies, and the repeats of one, run one after another: between two runs of one problem lies a
whole task, so that the engine's prefix cache favours none of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reason_engine.contracts import CodeSandbox, CodeTask, Task
from reason_engine.errors import ContextLengthExceeded, SetupError, first_error
from reason_engine.evals import tasks
from reason_engine.evals.records import Key, Record, RecordFile
from reason_engine.evals.solvers import Reply, Solver
from reason_engine.evals.spec import Spec, build
from reason_engine.types import Problem


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """What is evaluated. `limit`: problems of each task; `data`: the folder of public sets; `texts`: whether records
    keep the whole text; `repeats`: how often each problem is answered; `grade_paths`: the paths behind an answer are
    graded too; `pass_at`: the k of the pass@k to report, of repeats or of paths, none: 1 and all."""

    tasks: tuple[Spec, ...]
    strategies: tuple[Spec, ...]
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    concurrency: int = 4
    texts: bool = False
    repeats: int = 1
    pass_at: tuple[int, ...] = ()
    grade_paths: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "concurrency", "repeats"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SetupError(f"{name} must be at least 1")
        for k in self.pass_at:
            if k < 1:
                raise SetupError(f"pass@{k}: k must be at least 1")
            if k > self.repeats and not self.grade_paths:
                raise SetupError(f"pass@{k} needs at least {k} answers a problem; repeats is {self.repeats}")


@dataclass(frozen=True, slots=True)
class Trial:
    """One problem under one strategy, for the first time or again."""

    task: Task
    task_label: str
    strategy: Spec
    problem: Problem
    repeat: int = 0

    @property
    def index(self) -> int:
        """The problem's place in its data set."""
        return self.problem.meta["index"]


def trials(plan: EvalPlan, sandbox: CodeSandbox | None = None) -> list[Trial]:
    """All of the plan, strategy by strategy. Raises SetupError for a task, key or data file that is wrong, and for a
    task that runs programs where no `sandbox` is given."""
    built = [(_task(spec, sandbox), spec.label) for spec in plan.tasks]
    problems = [(task, label, task.problems(plan.limit, plan.seed, plan.data)) for task, label in built]
    return [
        Trial(task, label, strategy, problem, repeat)
        for task, label, found in problems
        for strategy in plan.strategies
        for repeat in range(plan.repeats)
        for problem in found
    ]


def _task(spec: Spec, sandbox: CodeSandbox | None) -> Task:
    task = build(tasks, spec)
    if not isinstance(task, CodeTask):
        return task
    if sandbox is None:
        raise SetupError(
            f"task {spec.name!r} runs the programs that a model writes, in a sandbox on this machine; "
            "allow that with `reason eval --allow-code`"
        )
    return task.graded_in(sandbox)


async def evaluate(
    plan: EvalPlan,
    solver: Solver,
    file: RecordFile,
    progress: Callable[[Record, int, int], None] = lambda record, done, total: None,
    sandbox: CodeSandbox | None = None,
    until: float | None = None,
) -> list[Record]:
    """Every record of the plan, in its order, earlier runs' included. `progress` hears each new one. `sandbox`: where
    the programs of tasks that are graded by running them run. `until`: from this moment of the monotonic clock on no
    problem is begun, and those that were not are left out.

    A problem that does not fit the model's context counts as wrong. Any other error ends the run; what is done is kept.
    """
    work = [
        (trial, (trial.task_label, trial.strategy.label, trial.index, plan.seed, trial.repeat))
        for trial in trials(plan, sandbox)
    ]
    known = file.load()
    for trial, key in work:
        if key in known and known[key].question != trial.problem.question:
            raise SetupError(
                f"{file.path} holds answers to other problems of {trial.task_label!r}; choose another --out"
            )
    waiting = iter([(trial, key) for trial, key in work if key not in known])

    async def worker(queue: Iterator[tuple[Trial, Key]]) -> None:
        for trial, key in queue:
            if until is not None and time.monotonic() >= until:
                return
            known[key] = await _answered(trial, key, plan, solver)
            file.append(known[key])
            progress(known[key], len(known), len(work))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(worker(waiting))
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [known[key] for _, key in work if key in known]


def seed_of(run_seed: int, index: int, repeat: int = 0) -> int:
    """Seed of one problem: by place, so that neither order nor concurrency changes it."""
    return run_seed * 1_000_003 + index + (repeat << 32)


async def _answered(trial: Trial, key: Key, plan: EvalPlan, solver: Solver) -> Record:
    error = None
    try:
        reply = await solver.answer(trial.problem, trial.strategy, seed_of(plan.seed, trial.index, trial.repeat))
    except ContextLengthExceeded as refused:
        reply, error = Reply(None, "", 0, 0, 0.0, "done", 0), refused.message

    async def right(answer: str | None, text: str) -> bool:
        return await trial.task.grade(trial.problem, answer, text, solver.equality)

    correct, passed = error is None and await right(reply.answer, reply.text), None
    if plan.grade_paths and reply.paths is not None:
        passed = sum([await right(answer, text) for answer, text in reply.paths])
    task, strategy, index, seed, repeat = key
    return Record(
        task, strategy, index, seed, trial.problem.question, reply.answer, correct, reply.completion_tokens,
        reply.prompt_tokens, round(reply.seconds, 4), reply.stopped, reply.samples, error,
        trial.problem.meta.get("part"), reply.text if plan.texts else None, reply.unread, reply.cut, repeat,
        None if reply.paths is None else len(reply.paths), passed,
    )  # fmt: skip
