"""`points.jsonl`: what pruning and recovery runs of a user came to, one checkpoint a line; appended to by every run.

{"run": "base-b width 0.3 1a2b3c", "by": "width", "N0": 229952, "rho": 0.301, "L0": 1.104, "D": 20480, "L": 1.731}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines, Line

WORDS, NUMBERS = ("run", "by"), ("N0", "rho", "L0", "D", "L")


@dataclass(frozen=True, slots=True)
class Point:
    """`by`: kind of pruning; N0: parameters before it; rho: pruned share; L0: loss before it; D: tokens of recovery;
    L: loss after them."""

    run: str
    by: str
    N0: float
    rho: float
    L0: float
    D: float
    L: float

    @property
    def excess(self) -> float:
        """L − L0."""
        return self.L - self.L0


def read_points(path: Path) -> list[Point]:
    """The file's points. Raises SetupError naming the line and the field at fault."""
    try:
        lines = list(JsonLines(path).lines("read"))
    except OSError as error:
        raise SetupError(f"--points: {path}: {error}") from None
    found = [_point(line, path) for line in lines if line.data.strip()]
    if not found:
        raise SetupError(f"--points: {path}: holds no points")
    return found


def append_points(path: Path, points: Sequence[Point]) -> None:
    """Add them at the end in one write, so that runs at the same time do not mix their lines. Raises SetupError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        JsonLines(path, escape=True).append(*map(asdict, points))
    except OSError as error:
        raise SetupError(f"points: {path}: {error}") from None


def runs_of(points: Sequence[Point]) -> dict[str, list[Point]]:
    """By run, each by rising D."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.run, []).append(point)
    return {name: sorted(run, key=lambda point: point.D) for name, run in found.items()}


def _point(line: Line, path: Path) -> Point:
    where = f"--points: {path}:{line.number}"
    try:
        row: Any = line.value()
    except UnicodeDecodeError as error:
        raise SetupError(f"--points: {path}: {error}") from None
    except ValueError:
        raise SetupError(f"{where}: not JSON") from None
    if not isinstance(row, Mapping):
        raise SetupError(f"{where}: must be an object with {', '.join(WORDS + NUMBERS)}")
    values = {name: _number(row, name, where) for name in NUMBERS}
    if values["N0"] < 1 or values["D"] < 1:
        name = "N0" if values["N0"] < 1 else "D"
        raise SetupError(f"{where}: {name}: must be at least 1, is {values[name]:g}")
    if not 0 < values["rho"] < 1:
        raise SetupError(f"{where}: rho: must be above 0 and below 1, is {values['rho']:g}")
    words = {name: row.get(name) for name in WORDS}
    if odd := next((name for name, word in words.items() if not isinstance(word, str) or not word), None):
        raise SetupError(f"{where}: {odd}: must be a word" + ("" if odd in row else ", is missing"))
    run, by = map(str, words.values())
    return Point(run, by, **values)


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SetupError(f"{where}: {name}: must be a number" + ("" if name in row else ", is missing"))
    return float(value)
