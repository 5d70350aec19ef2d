"""What a compression costs and brings, before and after: size, resident memory, perplexity, accuracy, tokens a second.

All by the embedded engine on this machine, in one run. Perplexity is exp of the mean cross-entropy of rows that were
not calibrated on, with an interval by resampling rows; accuracy has Wilson's interval and the paired difference.

A report as Markdown.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reason_engine.compression import Served
from reason_engine.compression.calibration_rows import has_source, read
from reason_engine.compression.config import Compression
from reason_engine.compression.look import look
from reason_engine.compression.measure import Accuracy, Speed, compare_accuracy, compare_speed, kept
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.errors import ModelLoadError
from reason_engine.evals.statistics import bootstrap
from reason_engine.progress import OnProgress

if TYPE_CHECKING:
    from reason_engine.compression.report import Perplexity, Report


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
class Report:
    """`notes` say what could not be measured and why."""

    method: str
    served: Served
    before: Side
    after: Side
    accuracy: tuple[Accuracy, ...] = ()
    speed: tuple[Speed, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_markdown(self) -> str:
        from reason_engine.compression.report import markdown

        return markdown(self)


def measure(
    method: str, before: Path, after: Path, config: Compression, served: Served, tell: OnProgress
) -> Report:
    """Measure both folders by what `config.report` asks for; what the embedded engine cannot load has its size only."""
    wish, old, new = config.report, _size(before), _size(after)
    try:
        for folder in (before, after):
            read_shape(folder)
    except ModelLoadError as error:
        return Report(method, served, Side(old), Side(new), notes=(f"not measured here: {error}",))
    notes: list[str] = []
    rows: list[list[int]] = []
    if wish.perplexity and has_source(config):
        rows = read(config, before).held_out
    elif wish.perplexity:
        notes.append("no perplexity: it is measured on rows of data or a mixture, and none is named")
    looked = wish.speed or bool(rows)
    sides = [
        _side(name, folder, size, rows if looked else None, wish.threads or 0, tell)
        for name, folder, size in (("before", before, old), ("after", after, new))
    ]
    accuracy = asyncio.run(compare_accuracy(before, after, wish, config.seed, tell)) if wish.tasks else []
    speed = (
        asyncio.run(compare_speed(before, after, wish.pairs, wish.threads or 0, tell)) if wish.speed else []
    )
    return Report(method, served, sides[0], sides[1], tuple(accuracy), tuple(speed), tuple(notes))


def _side(
    name: str, folder: Path, size: int, rows: Sequence[Sequence[int]] | None, threads: int, tell: OnProgress
) -> Side:
    if rows is None:
        return Side(size)
    tell({"stage": f"memory and perplexity, {name}", "done": 0, "total": 1})
    found = look(folder, rows, threads=threads)
    tell({"stage": f"memory and perplexity, {name}", "done": 1, "total": 1})
    value = _perplexity(found.rows) if rows else None
    return Side(size, found.loaded, found.loaded - found.empty, found.dtype, value)


def _perplexity(rows: Sequence[tuple[float, int]]) -> Perplexity:
    return Perplexity(_exp(rows), *bootstrap(rows, _exp), len(rows))


def _exp(rows: Sequence[tuple[float, int]]) -> float:
    return math.exp(min(700.0, sum(loss for loss, _ in rows) / sum(count for _, count in rows)))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in ModelFolder(folder).weight_files)


def markdown(report: Report) -> str:
    """The table, who serves the result, and what was not measured."""
    served = report.served
    return "\n".join(
        [
            f"# {report.method}",
            "",
            "| | before | after | after / before |",
            "|---|---:|---:|---:|",
            *_rows(report),
            "",
            "In brackets 95 % intervals: of resampled rows (perplexity), Wilson's (accuracy), of the median of pairs "
            "(speed). Measured by the embedded engine on this machine.",
            "",
            *(f"{note}." for note in report.notes),
            "Served by:",
            "",
            f"- embedded engine: {served.embedded}",
            f"- vLLM, CPU: {served.vllm_cpu}",
            f"- vLLM, GPU: {served.vllm_gpu}",
            "",
        ]
    )


def _rows(report: Report) -> Iterator[str]:
    old, new = report.before, report.after
    yield f"| files, MB | {old.size / 1e6:,.2f} | {new.size / 1e6:,.2f} | {new.size / old.size:.3f} |"
    if old.weights and new.weights and old.resident and new.resident:
        yield (
            f"| resident memory of the process, MB ({old.dtype}, {new.dtype}) | {old.resident / 1e6:,.1f} | "
            f"{new.resident / 1e6:,.1f} | {new.resident / old.resident:.3f} |"
        )
        yield (
            f"| of that the weights, MB | {old.weights / 1e6:,.1f} | {new.weights / 1e6:,.1f} | "
            f"{new.weights / old.weights:.3f} |"
        )
    if old.perplexity and new.perplexity:
        ratio = new.perplexity.value / old.perplexity.value
        yield (
            f"| perplexity of {old.perplexity.rows} rows | {_perplexity_cell(old.perplexity)} | "
            f"{_perplexity_cell(new.perplexity)} | {ratio:.3f} |"
        )
    for one in report.accuracy:
        yield _accuracy(one)
    for one in report.speed:
        yield (
            f"| tokens/s, {one.rows} at once | {one.before:,.0f} | {one.after:,.0f} | "
            f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}] |"
        )


def _perplexity_cell(found: Perplexity) -> str:
    return f"{found.value:,.3f} [{found.low:,.3f}, {found.high:,.3f}]"


def _accuracy(found: Accuracy) -> str:
    sides: list[str] = []
    for right in (found.before, found.after):
        low, high = found.interval(right)
        sides.append(f"{100 * right / found.problems:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    change, low, high = found.difference
    points = f"{100 * change:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], p = {found.p:.2g}"
    return f"| {found.task}, {found.strategy} ({found.problems}) | {' | '.join(sides)} | {kept(found):.3f}; {points} |"
