"""Answers and speed of a checkpoint before and after compression, by the embedded engine on this machine.

Accuracy is on the tasks and strategies of `reason eval`, with Wilson's interval and the paired difference. Speed is
measured in alternating pairs, so that what the machine does besides meets both: prompts are the same random tokens, and
each row writes a fixed number of tokens, greedily. Both are given a time, after which nothing new is begun.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.compression import Report
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.run import EvalPlan, evaluate, trials
from reason_engine.evals.solvers import LocalSolver
from reason_engine.evals.spec import parse_specs
from reason_engine.evals.statistics import bootstrap, paired_test, wilson
from reason_engine.profile import read_profile
from reason_engine.progress import OnProgress
from reason_engine.types import GenerateRequest, Sampling

CONCURRENCY = 16
"""Problems at once."""
WIDTHS, PROMPT, TOKENS = (1, 16), 32, 48
"""Of the measurement of speed: rows at once, and tokens that each reads and writes."""
FEWEST = 2
"""Pairs that are taken whatever the time."""


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

    @property
    def kept(self) -> float:
        """Right answers after, as a share of those before."""
        return self.after / self.before if self.before else float("nan")


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of tokens a second, and of the pairs' ratios after / before with its 95 % interval."""

    rows: int
    before: float
    after: float
    ratio: float
    low: float
    high: float


async def compare_accuracy(
    before: Path,
    after: Path,
    tasks: Mapping[str, str],
    options: Report,
    seed: int,
    seconds: float | None,
    tell: OnProgress,
) -> tuple[list[Accuracy], list[str]]:
    """One entry a task, of the problems that both sides answered in `seconds` each; and a line for each task that was
    cut short. Raises SetupError for a task whose data is missing."""
    named = [(parse_specs([a], "task"), parse_specs([b], "strategy")) for a, b in tasks.items()]
    plans = [EvalPlan(tuple(a), tuple(b), options.limit, seed, options.data, CONCURRENCY) for a, b in named]
    old, new = [
        await _records(plans, name, folder, options, seconds, tell)
        for name, folder in (("before", before), ("after", after))
    ]
    found: list[Accuracy] = []
    short: list[str] = []
    for plan, one, other in zip(plans, old, new, strict=True):
        pairs = [(one[index], other[index]) for index in one if index in other]
        wanted, name = len(trials(plan)), plan.tasks[0].label
        if len(pairs) < wanted:
            short.append(f"{name}: {len(pairs)} of {wanted} problems were answered in the time of report.seconds")
        if pairs:
            found.append(_accuracy(plan, pairs))
    return found, short


async def _records(
    plans: Sequence[EvalPlan], name: str, folder: Path, options: Report, seconds: float | None, tell: OnProgress
) -> list[dict[int, Record]]:
    """Each plan's by the problem's place; the time is shared among the plans that are left."""

    def progress(record: Record, done: int, total: int) -> None:
        tell({"stage": f"{record.task}, {name}", "done": done, "total": total})

    engine = Embedded(folder, inline=True, threads=options.threads or 0)
    async with LocalSolver(engine, read_profile(folder), max_tokens=options.max_tokens) as solver:
        found, end = list[dict[int, Record]](), None if seconds is None else time.monotonic() + seconds
        for at, plan in enumerate(plans):
            now = time.monotonic()
            until = None if end is None else now + (end - now) / (len(plans) - at)
            records = await evaluate(plan, solver, RecordFile(None), progress, until=until)
            found.append({record.index: record for record in records})
    return found


def _accuracy(plan: EvalPlan, pairs: Sequence[tuple[Record, Record]]) -> Accuracy:
    test = paired_test([(new.correct, old.correct) for old, new in pairs])
    old, new = (sum(pair[side].correct for pair in pairs) for side in (0, 1))
    names = plan.tasks[0].label, plan.strategies[0].label
    return Accuracy(*names, test.problems, old, new, (test.difference, test.low, test.high), test.p)


async def compare_speed(
    before: Path,
    after: Path,
    pairs: int,
    threads: int,
    tell: OnProgress,
    tokens: int = TOKENS,
    seconds: float | None = None,
) -> list[Speed]:
    """One entry a number of rows, each of which writes so many tokens. Both engines are held in memory at once. Two
    pairs at least are taken, and no further one is begun after `seconds`."""
    end = math.inf if seconds is None else time.monotonic() + seconds
    engines = [Embedded(folder, inline=True, threads=threads) for folder in (before, after)]
    vocabulary, found = read_shape(before).vocab, list[Speed]()
    try:
        for engine in engines:
            await engine.start()
        for at, width in enumerate(WIDTHS):
            now = time.monotonic()
            until = now + (end - now) / (len(WIDTHS) - at)
            for engine in engines:
                await _rate(engine, vocabulary, width, tokens, -1)
            rates: list[tuple[float, float]] = []
            for pair in range(pairs):
                if pair >= FEWEST and time.monotonic() >= until:
                    break
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
