"""What a compression costs and brings, before and after: size, resident memory, perplexity, accuracy, tokens a second.

All by the embedded engine on this machine, in one run. Perplexity is exp of the mean cross-entropy of rows that were
not calibrated on, with an interval by resampling rows. `compare` answers tasks and counts tokens a second.

`report.limit` bounds the problems and the rows, `report.seconds` the time: what is not begun then is not measured, on
either side, and the report says so. Of the seconds that the rows leave, accuracy takes its share for each side and
speed the rest.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.compression import CompressionConfig, Report, Served
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.compare import Accuracy, Speed, compare_accuracy, compare_speed
from reason_engine.compression.process import measure_in_process
from reason_engine.engines.checkpoint.folder import ModelFolder, read_header
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.errors import ModelLoadError
from reason_engine.evals.statistics import bootstrap
from reason_engine.profile import read_profile
from reason_engine.progress import OnProgress

ACCURACY = 0.4
"""The share of the time that the answers of each side may take, where speed is measured too."""
ENDS = re.compile(r"(embed_tokens|lm_head)\.weight$")
BY_STEPS = "chain-of-thought:temperature=0"


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Of `rows` rows, with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class Side:
    """One checkpoint. `size`: bytes of its weights' files, `embeddings` of them of embedding and output matrix, which
    no method makes smaller; `resident`: of an engine's process, `weights` of them grown when the weights were read.
    None: not measured."""

    size: int
    embeddings: int | None = None
    resident: int | None = None
    weights: int | None = None
    dtype: str | None = None
    perplexity: Perplexity | None = None


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
    options, old, new = config.report, _sizes(before), _sizes(after)
    try:
        for folder in (before, after):
            read_shape(folder)
    except ModelLoadError as error:
        return CompressionReport(method, served, Side(*old), Side(*new), notes=(f"not measured here: {error}",))
    notes, rows, began = list[str](), list[list[int]](), time.monotonic()
    if options.perplexity and config.has_text:
        rows = read_calibration(config, before).held_out[: options.limit]
    elif options.perplexity:
        notes.append("no perplexity: it is measured on rows of data or a mixture, and none is named")
    in_process = options.speed or bool(rows)
    first, second = [
        _side(name, folder, size, rows if in_process else None, options.threads or 0, tell)
        for name, folder, size in (("before", before, old), ("after", after, new))
    ]
    accuracy, speed, tasks = list[Accuracy](), list[Speed](), _tasks(before, options)
    if tasks is None:
        notes.append("no accuracy: name report.tasks, or in report.data a folder of public sets, as gsm8k/test.jsonl")
    left = None if options.seconds is None else max(1.0, options.seconds - (time.monotonic() - began))
    if tasks:
        share = None if left is None else left * (ACCURACY if options.speed else 0.5)
        accuracy, short = asyncio.run(compare_accuracy(before, after, tasks, options, config.seed, share, tell))
        notes += short
    if options.speed:
        share = None if left is None else left * (1 - 2 * ACCURACY if tasks else 1)
        speed = asyncio.run(compare_speed(before, after, options.pairs, options.threads or 0, tell, seconds=share))
    return CompressionReport(method, served, first, second, tuple(accuracy), tuple(speed), tuple(notes))


def _tasks(model: Path, options: Report) -> Mapping[str, str] | None:
    """Those that are named; else what the model's own profile knows, or GSM8K where it is at hand; None: nothing is."""
    if options.tasks is not None:
        return options.tasks
    if read_profile(model).tasks:
        return {"word-problems": BY_STEPS}
    return {"gsm8k": BY_STEPS} if options.data is not None else None


def _side(
    name: str, folder: Path, size: tuple[int, int], rows: Sequence[Sequence[int]] | None, threads: int, tell: OnProgress
) -> Side:
    if rows is None:
        return Side(*size)
    stage, total = f"memory and perplexity, {name}", len(rows) + 1
    tell({"stage": stage, "done": 0, "total": total})
    found = measure_in_process(
        folder, rows, threads=threads, on_row=lambda done: tell({"stage": stage, "done": done, "total": total})
    )
    tell({"stage": stage, "done": total, "total": total})
    scored = found.rows
    value = Perplexity(_exp_mean(scored), *bootstrap(scored, _exp_mean), len(scored)) if rows else None
    return Side(*size, found.loaded, found.loaded - found.empty, found.dtype, value)


def _exp_mean(rows: Sequence[tuple[float, int]]) -> float:
    return math.exp(min(700.0, sum(loss for loss, _ in rows) / sum(count for _, count in rows)))


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the weights' files, and of the tensors that stay as they are by design."""
    files = ModelFolder(folder).weight_files
    tensors = [entry for path in files for entry in read_header(path).items() if ENDS.search(entry[0])]
    return sum(path.stat().st_size for path in files), sum(_bytes(entry) for _, entry in tensors)


def _bytes(entry: Mapping[str, Any]) -> int:
    start, stop = entry["data_offsets"]
    return stop - start


def _rows(report: CompressionReport) -> Iterator[str]:
    old, new = report.before, report.after
    yield f"| files, MB | {old.size / 1e6:,.2f} | {new.size / 1e6:,.2f} | {new.size / old.size:.3f} |"
    if old.embeddings is not None and new.embeddings is not None and old.size > old.embeddings:
        a, b = old.size - old.embeddings, new.size - new.embeddings
        yield f"| of that without embedding and output matrix, MB | {a / 1e6:,.2f} | {b / 1e6:,.2f} | {b / a:.3f} |"
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
