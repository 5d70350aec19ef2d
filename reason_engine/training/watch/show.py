"""A run as lines for a terminal: how far it is, its curves, what changed, and the samples of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.training.watch.read import RunView, changes

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 48
"""Columns of a curve."""


def show_run(view: RunView, step: int | None = None) -> str:
    """`step`: whose samples are shown; none: the last one's. Raises SetupError for one that has none."""
    lines = [f"{view.out}: {view.state}", ""]
    lines += _curves(view)
    if table := changes(view):
        lines += ["", f"{'':22}{'before':>12}{'after':>12}"]
        lines += [f"{f'{one.name} ({one.where})':22}{one.before:12.4g}{one.after:12.4g}" for one in table]
    return "\n".join([*lines, *_samples(view, step)])


def samples_of(view: RunView, step: int | None) -> list[Mapping[str, Any]]:
    """Those of a step; none named: of the last one. Raises SetupError for a step that has none."""
    known = view.steps
    wanted = step if step is not None else known[-1] if known else None
    if wanted is not None and wanted not in known:
        have = f"{known[0]} to {known[-1]}" if known else "none"
        raise SetupError(f"--step {wanted}: no samples are kept of it; of these they are: {have}")
    return [row for row in view.samples if row["step"] == wanted]


def _curves(view: RunView) -> Iterator[str]:
    for name in view.curves:
        values = [value for _, value in view.points(name)]
        yield f"{name:18}{values[0]:>12.4g} {sparkline(values):{WIDTH}} {values[-1]:.4g}"


def _samples(view: RunView, step: int | None) -> Iterator[str]:
    question = None
    for row in samples_of(view, step):
        if row["question"] != question:
            question = row["question"]
            yield f"\nstep {row['step']}: {question}"
        read = f", read as {row['answer']}" if row["answer"] is not None else ", no answer found"
        wanted = f", wanted {row['reference']}" if row["reference"] is not None else ""
        yield f"\n  [reward {row['reward']:g}, {row['tokens']} tokens, {row['finish']}{read}{wanted}]"
        yield from (f"  {line}" for line in row["text"].strip().splitlines())


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The curve in so many columns at most, each the mean of its values."""
    count = min(width, len(values))
    edges = [at * len(values) // count for at in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if not high - low > 0:
        return BARS[0] * count
    return "".join(BARS[int((value - low) / (high - low) * (len(BARS) - 1) + 0.5)] for value in means)
