"""A run's folder read again, finished or not: its log, samples, held-out figures and manifest, and what changed by it.

Of a log without held-out figures the first tenth of its lines is compared with the last: single steps are noise.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.training.common.run_folder import JUDGED, LOG
from reason_engine.training.watch.samples import SAMPLES

MANIFEST = "manifest.json"
FIRST = ("reward", "accuracy", "loss", "length", "margin", "kl", "entropy", "truncated", "flat", "norm")
"""Curves in the order in which they are looked at; the others come after them by name."""
PLAIN = frozenset({"step", "tokens", "left", "seconds", "memory", "trained"})
SHARE = 0.1
"""Of a log's lines, at each end, that stand for before and after."""


@dataclass(frozen=True, slots=True)
class Change:
    """Of a figure; `where` says of what, as `held out` or `log`."""

    name: str
    before: float
    after: float
    where: str


@dataclass(frozen=True, slots=True)
class RunView:
    """`manifest`: of a run that is finished; `age`: seconds since its log last grew."""

    out: Path
    log: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    held_out: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any] | None
    age: float

    @property
    def curves(self) -> list[str]:
        """The names of the figures that change from line to line."""
        seen = {name for row in self.log for name, value in row.items() if isinstance(value, int | float)} - PLAIN
        known = [name for name in FIRST if name in seen]
        return known + sorted(seen.difference(known))

    def points(self, name: str) -> list[tuple[int, float]]:
        """(step, value)."""
        return [(row["step"], row[name]) for row in self.log if name in row]

    @property
    def steps(self) -> list[int]:
        """Those that samples are kept of."""
        return sorted({row["step"] for row in self.samples})

    @property
    def state(self) -> str:
        """In a line: how far, how long, finished or not."""
        last = self.log[-1]
        how = "finished" if self.manifest is not None else f"not finished; its last line is {round(self.age)} s old"
        return f"step {last['step']:,}, {last['tokens']:,} tokens, {how}"


def read_run(out: Path) -> RunView:
    """Raises SetupError where the folder holds no run."""
    try:
        log = [line.value() for line in JsonLines(out / LOG).lines()]
        age = datetime.now().timestamp() - (out / LOG).stat().st_mtime
    except FileNotFoundError:
        raise SetupError(f"{out}: holds no run: there is no {LOG} in it") from None
    except (OSError, ValueError) as error:
        raise SetupError(f"{out / LOG}: {error}") from None
    if not log:
        raise SetupError(f"{out / LOG}: the run has not ended its first step yet")
    return RunView(out, log, _rows(out / SAMPLES), _rows(out / JUDGED), _manifest(out), age)


def changes(view: RunView) -> list[Change]:
    """What the run changed: first by held-out rows, then by its log."""
    found: list[Change] = []
    if len(view.held_out) > 1:
        first, last = view.held_out[0], view.held_out[-1]
        found += [Change(n, first[n], last[n], "held out") for n in first if n in last and n not in PLAIN]
    some = max(1, round(SHARE * len(view.log)))
    for name in view.curves:
        values = [value for _, value in view.points(name)]
        if name in FIRST and len(values) > 1:
            found.append(Change(name, statistics.fmean(values[:some]), statistics.fmean(values[-some:]), "log"))
    return found


def _manifest(out: Path) -> Mapping[str, Any] | None:
    try:
        return json.loads((out / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        return []
    try:
        return [line.value() for line in JsonLines(path).lines()]
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: {error}") from None
