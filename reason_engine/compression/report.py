"""What a compression costs and brings, before and after: size, resident memory, perplexity, accuracy, tokens a second.

All by the embedded engine on this machine, in one run. Perplexity is exp of the mean cross-entropy of rows that were
not calibrated on, with an interval by resampling rows; accuracy has Wilson's interval and the paired difference.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.compression import Served
from reason_engine.compression._accuracy import Accuracy
from reason_engine.compression._look import look
from reason_engine.compression._speed import Speed
from reason_engine.compression.config import Compression
from reason_engine.compression.material import has_source, read
from reason_engine.engines._checkpoint import weight_files
from reason_engine.engines.embedded.shape import read_shape
from reason_engine.errors import ModelLoadError
from reason_engine.evals.statistics import bootstrap
from reason_engine.training.callbacks import Tell


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
        from reason_engine.compression._table import markdown

        return markdown(self)


def measure(
    method: str, before: Path, after: Path, config: Compression, served: Served, tell: Tell
) -> Report:
    """Measure both folders by what `config.report` asks for; what the embedded engine cannot load has its size only."""
    from reason_engine.compression import _accuracy, _speed

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
    accuracy = asyncio.run(_accuracy.compare(before, after, wish, config.seed, tell)) if wish.tasks else []
    speed = (
        asyncio.run(_speed.compare(before, after, wish.pairs, wish.threads or 0, tell)) if wish.speed else []
    )
    return Report(method, served, sides[0], sides[1], tuple(accuracy), tuple(speed), tuple(notes))


def _side(
    name: str, folder: Path, size: int, rows: Sequence[Sequence[int]] | None, threads: int, tell: Tell
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
    return sum(path.stat().st_size for path in weight_files(folder))
