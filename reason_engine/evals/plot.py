"""Success against cost, one panel a task: generated tokens on a logarithmic axis, Wilson intervals as bars."""

from __future__ import annotations

from pathlib import Path

from reason_engine.evals.report import Report


def plot(report: Report, path: Path) -> None:
    """Write a PNG. Draws without a display."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row.task for row in report.rows))
    figure = Figure(figsize=(7, 4.2 * len(names)), layout="constrained")
    for place, task in enumerate(names, 1):
        axes = figure.add_subplot(len(names), 1, place)
        for row in (row for row in report.rows if row.task == task):
            low, high = 100 * max(0.0, row.success - row.low), 100 * max(0.0, row.high - row.success)
            x, y = max(row.new_tokens, 1.0), 100 * row.success
            axes.errorbar([x], [y], yerr=[[low], [high]], fmt="o", capsize=3, label=row.strategy)
        axes.set(title=task, xlabel="new tokens a problem", ylabel="success %", xscale="log", ylim=(-3, 103))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
