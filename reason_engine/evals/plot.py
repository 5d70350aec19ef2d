"""A run as a picture: success against generated tokens, one panel a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reason_engine.evals.report import EvalReport, StrategyResult


def plot(report: EvalReport, path: Path) -> None:
    """Write a PNG, without a display: tokens on a logarithmic axis, Wilson intervals as bars, `auto` as a star. The
    grey line is what the fixed strategies reach at a price."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.task for row in report.rows))
    figure = Figure(figsize=(7, 4.2 * len(names)), layout="constrained")
    for place, task in enumerate(names, 1):
        axes = figure.add_subplot(len(names), 1, place)
        rows = [row for row in report.rows if row.task == task]
        for row in rows:
            low, high = 100 * max(0.0, row.success - row.low), 100 * max(0.0, row.high - row.success)
            x, y, star = max(row.new_tokens, 1.0), 100 * row.success, _auto(row)
            axes.errorbar([x], [y], yerr=[[low], [high]], fmt="*" if star else "o", markersize=13 if star else 6,
                          capsize=3, label=row.strategy)  # fmt: skip
        best = frontier([(max(row.new_tokens, 1.0), 100 * row.success) for row in rows if not _auto(row)])
        x, y = [x for x, _ in best], [y for _, y in best]
        axes.plot(x, y, drawstyle="steps-post", color="grey", linewidth=0.8, zorder=0)
        axes.set(title=task, xlabel="new tokens a problem", ylabel="success %", xscale="log", ylim=(-3, 103))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, success) those that nothing cheaper reaches, cheapest first."""
    best: list[tuple[float, float]] = []
    for cost, success in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or success > best[-1][1]:
            best.append((cost, success))
    return best


def _auto(row: StrategyResult) -> bool:
    return row.strategy.partition(":")[0] == "auto"
