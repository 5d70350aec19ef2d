"""The same problems put to two checkpoints, by the tasks and strategies of `reason eval`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.compression.config import Report
from reason_engine.engines.embedded import Embedded
from reason_engine.evals.record import Record, RecordFile
from reason_engine.evals.run import Plan, evaluate
from reason_engine.evals.solvers import InProcess
from reason_engine.evals.spec import parse_specs
from reason_engine.evals.statistics import mcnemar, paired_difference, wilson
from reason_engine.profile import read_profile
from reason_engine.training.callbacks import Tell

CONCURRENCY = 16


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers of `problems`; `difference` is after minus before with its interval, `p` McNemar's."""

    task: str
    strategy: str
    problems: int
    before: int
    after: int
    difference: tuple[float, float, float]
    p: float

    def interval(self, right: int) -> tuple[float, float]:
        """95 %, Wilson."""
        return wilson(right, self.problems)


def plans(config: Report, seed: int) -> list[Plan]:
    """A plan a task. Raises SetupError for a task whose data is missing."""
    return [
        Plan(
            tuple(parse_specs([task], "task")),
            tuple(parse_specs([strategy], "strategy")),
            limit=config.limit,
            seed=seed,
            data=config.data,
            concurrency=CONCURRENCY,
        )
        for task, strategy in config.tasks.items()
    ]


async def compare(before: Path, after: Path, config: Report, seed: int, tell: Tell) -> list[Accuracy]:
    """One entry a task."""
    wanted = plans(config, seed)
    sides = [
        await _answers(folder, name, wanted, config, tell)
        for name, folder in (("before", before), ("after", after))
    ]
    return [_accuracy(plan, *pair) for plan, pair in zip(wanted, zip(*sides, strict=True), strict=True)]


async def _answers(
    folder: Path, name: str, wanted: list[Plan], config: Report, tell: Tell
) -> list[list[Record]]:
    engine, equality = Embedded(folder, inline=True, threads=config.threads or 0), Equality()
    await engine.start()
    try:
        solver = InProcess(engine, read_profile(folder), equality)
        return [
            await evaluate(plan, solver, equality, RecordFile(None), _progress(plan, name, tell))
            for plan in wanted
        ]
    finally:
        await engine.close()
        await equality.close()


def _progress(plan: Plan, name: str, tell: Tell) -> Callable[[Record, int, int], None]:
    stage = f"{plan.tasks[0].label}, {name}"
    return lambda _, done, total: tell({"stage": stage, "done": done, "total": total})


def _accuracy(plan: Plan, before: list[Record], after: list[Record]) -> Accuracy:
    pairs = [(old.correct, new.correct) for old, new in zip(before, after, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return Accuracy(
        plan.tasks[0].label,
        plan.strategies[0].label,
        len(pairs),
        sum(old for old, _ in pairs),
        sum(new for _, new in pairs),
        paired_difference(won, lost, len(pairs)),
        mcnemar(won, lost),
    )


def kept(found: Accuracy) -> float:
    """Right answers after, as a share of those before."""
    return found.after / found.before if found.before else float("nan")
