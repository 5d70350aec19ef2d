"""The same problems put to two checkpoints, by the tasks and strategies of `reason eval`.

Tokens a second of two checkpoints in one run: alternating pairs, so that what the machine does besides meets both.

Prompts are the same random tokens for both; each row writes a fixed number of tokens, greedily, with no end.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.compression.config import Report
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.evals.run import Plan, Record, RecordFile, evaluate
from reason_engine.evals.solvers import LocalSolver
from reason_engine.evals.spec import parse_specs
from reason_engine.evals.statistics import bootstrap, mcnemar, paired_difference, wilson
from reason_engine.profile import read_profile
from reason_engine.progress import OnProgress
from reason_engine.types import GenerateRequest, Sampling

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


async def compare_accuracy(
    before: Path, after: Path, config: Report, seed: int, tell: OnProgress
) -> list[Accuracy]:
    """One entry a task."""
    wanted = plans(config, seed)
    sides = [
        await _answers(folder, name, wanted, config, tell)
        for name, folder in (("before", before), ("after", after))
    ]
    return [_accuracy(plan, *pair) for plan, pair in zip(wanted, zip(*sides, strict=True), strict=True)]


async def _answers(
    folder: Path, name: str, wanted: list[Plan], config: Report, tell: OnProgress
) -> list[list[Record]]:
    engine, equality = Embedded(folder, inline=True, threads=config.threads or 0), Equality()
    await engine.start()
    try:
        solver = LocalSolver(engine, read_profile(folder), equality)
        return [
            await evaluate(plan, solver, equality, RecordFile(None), _progress(plan, name, tell))
            for plan in wanted
        ]
    finally:
        await engine.close()
        await equality.close()


def _progress(plan: Plan, name: str, tell: OnProgress) -> Callable[[Record, int, int], None]:
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


PROMPT = 32
TOKENS = 48
WIDTHS = (1, 16)


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of tokens a second, and of the pairs' ratios after / before with its 95 % interval."""

    rows: int
    before: float
    after: float
    ratio: float
    low: float
    high: float


async def compare_speed(
    before: Path, after: Path, pairs: int, threads: int, tell: OnProgress, tokens: int = TOKENS
) -> list[Speed]:
    """One entry a number of rows, each of which writes so many tokens. Both engines are held in memory at once."""
    engines = [Embedded(folder, inline=True, threads=threads) for folder in (before, after)]
    vocabulary = read_shape(before).vocab
    found: list[Speed] = []
    try:
        for engine in engines:
            await engine.start()
        for width in WIDTHS:
            for engine in engines:
                await _rate(engine, vocabulary, width, tokens, -1)
            rates: list[tuple[float, float]] = []
            for pair in range(pairs):
                order = engines if pair % 2 == 0 else engines[::-1]
                seen = {id(engine): await _rate(engine, vocabulary, width, tokens, pair) for engine in order}
                rates.append((seen[id(engines[0])], seen[id(engines[1])]))
                tell({"stage": f"speed, {width} at once", "done": pair + 1, "total": pairs})
            found.append(_speed(width, rates))
    finally:
        for engine in engines:
            await engine.close()
    return found


async def _rate(engine: Embedded, vocabulary: int, rows: int, tokens: int, seed: int) -> float:
    rng = random.Random(f"speed-{seed}")
    ids = tuple(rng.randrange(3, vocabulary) for _ in range(PROMPT))
    sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    began, count = time.monotonic(), 0
    async for chunk in engine.generate(GenerateRequest(f"speed-{rows}-{seed}", ids, rows, sampling)):
        count += len(chunk.token_ids)
    return count / (time.monotonic() - began)


def _speed(rows: int, rates: Sequence[tuple[float, float]]) -> Speed:
    ratios = [after / before for before, after in rates]
    low, high = bootstrap(ratios, statistics.median)
    first, second = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
    return Speed(rows, first, second, statistics.median(ratios), low, high)
