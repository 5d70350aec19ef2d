"""Runs tasks times strategies and keeps every answer, in `answers.jsonl` where it is given a file.

Problem i has the same seed under every strategy, so that strategies are compared in pairs; a run that was killed goes
on where it stopped. Strategies run one after another: between two runs of one problem lies a whole task, so that the
engine's prefix cache favours none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reason_engine.contracts import Task
from reason_engine.errors import ContextLengthExceeded, SetupError, first_error
from reason_engine.evals import tasks
from reason_engine.evals.solvers import Reply, Solver
from reason_engine.evals.spec import Spec, build
from reason_engine.jsonl import JsonLines
from reason_engine.types import Problem

Key = tuple[str, str, int, int]


@dataclass(frozen=True, slots=True)
class EvalPlan:
    """What is evaluated. `limit`: problems of each task; `data`: the folder of public sets; `texts`: whether records
    keep the whole text."""

    tasks: tuple[Spec, ...]
    strategies: tuple[Spec, ...]
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    concurrency: int = 4
    texts: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "concurrency"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise SetupError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True)
class Record:
    """`completion_tokens`: every generated token of the problem. `internal_prompt_tokens`: prompt tokens of its calls
    to the engine that no prefix cache held. `error`: why there is no answer, where the problem was refused. `part`: of
    a mixed task; `text`: the whole text, where a run keeps it."""

    task: str
    strategy: str
    index: int
    seed: int
    question: str
    answer: str | None
    correct: bool
    completion_tokens: int
    internal_prompt_tokens: int
    seconds: float
    stopped: str
    samples: int = 0
    error: str | None = None
    part: str | None = None
    text: str | None = None

    @property
    def key(self) -> Key:
        """What a run does not do twice."""
        return self.task, self.strategy, self.index, self.seed


class RecordFile:
    """Appends records as they come. None as path keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def load(self) -> dict[Key, Record]:
        """The records so far; a last line that a kill cut short is dropped. Raises SetupError on any other bad line."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            lines = list(JsonLines(self.path).lines("cut"))
        except OSError as error:
            raise SetupError(f"{self.path}: {error}") from None
        found: dict[Key, Record] = {}
        for line in lines:
            try:
                row = line.value()
                names = [field.name for field in fields(Record)]
                record = Record(**{name: row[name] for name in names if name in row or name not in ("part", "text")})
            except UnicodeDecodeError as error:
                raise SetupError(f"{self.path}: {error}") from None
            except (ValueError, KeyError, TypeError) as error:
                raise SetupError(f"{self.path}:{line.number}: not a record of an evaluation: {error!r}") from None
            found[record.key] = record
        return found

    def append(self, record: Record) -> None:
        """Write one line, at once."""
        if self.path is not None:
            row = {key: value for key, value in asdict(record).items() if key != "text" or value is not None}
            JsonLines(self.path).append(row)


@dataclass(frozen=True, slots=True)
class Trial:
    """One problem under one strategy."""

    task: Task
    task_label: str
    strategy: Spec
    problem: Problem

    @property
    def index(self) -> int:
        """The problem's place in its data set."""
        return self.problem.meta["index"]


def trials(plan: EvalPlan) -> list[Trial]:
    """All of the plan, strategy by strategy. Raises SetupError for a task, key or data file that is wrong."""
    built = [(build(tasks, spec), spec.label) for spec in plan.tasks]
    problems = [(task, label, task.problems(plan.limit, plan.seed, plan.data)) for task, label in built]
    return [
        Trial(task, label, strategy, problem)
        for task, label, found in problems
        for strategy in plan.strategies
        for problem in found
    ]


async def evaluate(
    plan: EvalPlan,
    solver: Solver,
    file: RecordFile,
    progress: Callable[[Record, int, int], None] = lambda record, done, total: None,
) -> list[Record]:
    """Every record of the plan, in its order, earlier runs' included. `progress` hears each new one.

    A problem that does not fit the model's context counts as wrong. Any other error ends the run; what is done is kept.
    """
    work = [(trial, (trial.task_label, trial.strategy.label, trial.index, plan.seed)) for trial in trials(plan)]
    known = file.load()
    for trial, key in work:
        if key in known and known[key].question != trial.problem.question:
            raise SetupError(
                f"{file.path} holds answers to other problems of {trial.task_label!r}; choose another --out"
            )
    waiting = iter([(trial, key) for trial, key in work if key not in known])

    async def worker(queue: Iterator[tuple[Trial, Key]]) -> None:
        for trial, key in queue:
            known[key] = await _answered(trial, key, plan, solver)
            file.append(known[key])
            progress(known[key], len(known), len(work))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrency):
                group.create_task(worker(waiting))
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    return [known[key] for _, key in work]


def seed_of(run_seed: int, index: int) -> int:
    """Seed of one problem: by place, so that neither order nor concurrency changes it."""
    return run_seed * 1_000_003 + index


async def _answered(trial: Trial, key: Key, plan: EvalPlan, solver: Solver) -> Record:
    error = None
    try:
        reply = await solver.answer(trial.problem, trial.strategy, seed_of(plan.seed, trial.index))
    except ContextLengthExceeded as refused:
        reply, error = Reply(None, "", 0, 0, 0.0, "done", 0), refused.message
    correct = error is None and await trial.task.grade(trial.problem, reply.answer, reply.text, solver.equality)
    return Record(
        *key, trial.problem.question, reply.answer, correct, reply.completion_tokens, reply.prompt_tokens,
        round(reply.seconds, 4), reply.stopped, reply.samples, error, trial.problem.meta.get("part"),
        reply.text if plan.texts else None,
    )  # fmt: skip
