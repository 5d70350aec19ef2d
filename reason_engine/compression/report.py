"""What a compression costs and brings, before and after: size, resident memory, perplexity, accuracy, tokens a second.

All by the embedded engine on this machine, in one run. Perplexity is exp of the mean cross-entropy of rows that were
not calibrated on, with an interval by resampling rows. Accuracy is on the tasks and strategies of `reason eval`, with
Wilson's interval and the paired difference. Speed is measured in alternating pairs, so that what the machine does
besides meets both: prompts are the same random tokens, and each row writes a fixed number of tokens, greedily.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reason_engine.compression import CompressionConfig, Report, Served
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.process import measure_in_process
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.errors import ModelLoadError
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.run import EvalPlan, evaluate
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


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Of `rows` rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class Side:
    """One checkpoint. `size`: bytes of its weights' files; `resident`: of an engine's process, `weights` of them grown
    when the weights were read. None: not measured."""

    size: int
    resident: int | None = None
    weights: int | None = None
    dtype: str | None = None
    perplexity: Perplexity | None = None


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


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """`notes` say what could not be measured and why."""

    method: str
    served: Served
    before: Side
    after: Side
    accuracy: tuple[Accuracy, ...] = ()
    speed: tuple[Speed, ...] = ()
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The table, who serves the result, and what was not measured."""
        head = [f"# {self.method}", "", "| | before | after | after / before |", "|---|---:|---:|---:|"]
        how = (
            "In brackets 95 % intervals: of resampled rows (perplexity), Wilson's (accuracy), of the median of pairs "
            "(speed). Measured by the embedded engine on this machine."
        )
        served = zip(("embedded engine", "vLLM, CPU", "vLLM, GPU"), asdict(self.served).values(), strict=True)
        foot = [*(f"{note}." for note in self.notes), "Served by:", "", *map("- {0[0]}: {0[1]}".format, served), ""]
        return "\n".join([*head, *_rows(self), "", how, "", *foot])


def measure(
    method: str, before: Path, after: Path, config: CompressionConfig, served: Served, tell: OnProgress
) -> CompressionReport:
    """Measure both folders by what `config.report` asks for; what the embedded engine cannot load has its size only."""
    options, old, new = config.report, _size(before), _size(after)
    try:
        for folder in (before, after):
            read_shape(folder)
    except ModelLoadError as error:
        return CompressionReport(method, served, Side(old), Side(new), notes=(f"not measured here: {error}",))
    notes, rows = list[str](), list[list[int]]()
    if options.perplexity and config.has_text:
        rows = read_calibration(config, before).held_out
    elif options.perplexity:
        notes.append("no perplexity: it is measured on rows of data or a mixture, and none is named")
    in_process = options.speed or bool(rows)
    first, second = [
        _side(name, folder, size, rows if in_process else None, options.threads or 0, tell)
        for name, folder, size in (("before", before, old), ("after", after, new))
    ]
    accuracy, speed = list[Accuracy](), list[Speed]()
    if options.tasks:
        accuracy = asyncio.run(compare_accuracy(before, after, options, config.seed, tell))
    if options.speed:
        speed = asyncio.run(compare_speed(before, after, options.pairs, options.threads or 0, tell))
    return CompressionReport(method, served, first, second, tuple(accuracy), tuple(speed), tuple(notes))


def _side(
    name: str, folder: Path, size: int, rows: Sequence[Sequence[int]] | None, threads: int, tell: OnProgress
) -> Side:
    if rows is None:
        return Side(size)
    tell({"stage": f"memory and perplexity, {name}", "done": 0, "total": 1})
    found = measure_in_process(folder, rows, threads=threads)
    tell({"stage": f"memory and perplexity, {name}", "done": 1, "total": 1})
    scored = found.rows
    value = Perplexity(_exp_mean(scored), *bootstrap(scored, _exp_mean), len(scored)) if rows else None
    return Side(size, found.loaded, found.loaded - found.empty, found.dtype, value)


def _exp_mean(rows: Sequence[tuple[float, int]]) -> float:
    return math.exp(min(700.0, sum(loss for loss, _ in rows) / sum(count for _, count in rows)))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in ModelFolder(folder).weight_files)


async def compare_accuracy(before: Path, after: Path, options: Report, seed: int, tell: OnProgress) -> list[Accuracy]:
    """One entry a task. Raises SetupError for a task whose data is missing."""
    named = [(parse_specs([a], "task"), parse_specs([b], "strategy")) for a, b in options.tasks.items()]
    plans = [EvalPlan(tuple(a), tuple(b), options.limit, seed, options.data, CONCURRENCY) for a, b in named]
    old, new = [
        await _records(plans, name, folder, options.threads or 0, tell)
        for name, folder in (("before", before), ("after", after))
    ]
    return list(map(_accuracy, plans, old, new))


async def _records(
    plans: Sequence[EvalPlan], name: str, folder: Path, threads: int, tell: OnProgress
) -> list[list[Record]]:
    def progress(record: Record, done: int, total: int) -> None:
        tell({"stage": f"{record.task}, {name}", "done": done, "total": total})

    async with LocalSolver(Embedded(folder, inline=True, threads=threads), read_profile(folder)) as solver:
        return [await evaluate(plan, solver, RecordFile(None), progress) for plan in plans]


def _accuracy(plan: EvalPlan, before: Sequence[Record], after: Sequence[Record]) -> Accuracy:
    test = paired_test([(new.correct, old.correct) for old, new in zip(before, after, strict=True)])
    old, new = (sum(record.correct for record in side) for side in (before, after))
    names = plan.tasks[0].label, plan.strategies[0].label
    return Accuracy(*names, test.problems, old, new, (test.difference, test.low, test.high), test.p)


async def compare_speed(
    before: Path, after: Path, pairs: int, threads: int, tell: OnProgress, tokens: int = TOKENS
) -> list[Speed]:
    """One entry a number of rows, each of which writes so many tokens. Both engines are held in memory at once."""
    engines = [Embedded(folder, inline=True, threads=threads) for folder in (before, after)]
    vocabulary, found = read_shape(before).vocab, list[Speed]()
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


def _rows(report: CompressionReport) -> Iterator[str]:
    old, new = report.before, report.after
    yield f"| files, MB | {old.size / 1e6:,.2f} | {new.size / 1e6:,.2f} | {new.size / old.size:.3f} |"
    if old.weights and new.weights and old.resident and new.resident:
        resident = f"resident memory of the process, MB ({old.dtype}, {new.dtype})"
        for what, a, b in (
            (resident, old.resident, new.resident),
            ("of that the weights, MB", old.weights, new.weights),
        ):
            yield f"| {what} | {a / 1e6:,.1f} | {b / 1e6:,.1f} | {b / a:.3f} |"
    if old.perplexity and new.perplexity:
        sides, ratio = (old.perplexity, new.perplexity), new.perplexity.value / old.perplexity.value
        cells = " | ".join(f"{side.value:,.3f} [{side.low:,.3f}, {side.high:,.3f}]" for side in sides)
        yield f"| perplexity of {old.perplexity.rows} rows | {cells} | {ratio:.3f} |"
    yield from map(_accuracy_row, report.accuracy)
    for one in report.speed:
        yield (
            f"| tokens/s, {one.rows} at once | {one.before:,.0f} | {one.after:,.0f} | "
            f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}] |"
        )


def _accuracy_row(found: Accuracy) -> str:
    sides: list[str] = []
    for right in (found.before, found.after):
        low, high = found.interval(right)
        sides.append(f"{100 * right / found.problems:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    change, low, high = found.difference
    points = f"{100 * change:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], p = {found.p:.2g}"
    return f"| {found.task}, {found.strategy} ({found.problems}) | {' | '.join(sides)} | {found.kept:.3f}; {points} |"
