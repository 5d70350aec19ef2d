"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reason_engine.compression._accuracy import Accuracy, kept

if TYPE_CHECKING:
    from reason_engine.compression.report import Perplexity, Report


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
            f"| perplexity of {old.perplexity.rows} rows | {_perplexity(old.perplexity)} | "
            f"{_perplexity(new.perplexity)} | {ratio:.3f} |"
        )
    for one in report.accuracy:
        yield _accuracy(one)
    for one in report.speed:
        yield (
            f"| tokens/s, {one.rows} at once | {one.before:,.0f} | {one.after:,.0f} | "
            f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}] |"
        )


def _perplexity(found: Perplexity) -> str:
    return f"{found.value:,.3f} [{found.low:,.3f}, {found.high:,.3f}]"


def _accuracy(found: Accuracy) -> str:
    sides: list[str] = []
    for right in (found.before, found.after):
        low, high = found.interval(right)
        sides.append(f"{100 * right / found.problems:.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    change, low, high = found.difference
    points = f"{100 * change:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], p = {found.p:.2g}"
    return f"| {found.task}, {found.strategy} ({found.problems}) | {' | '.join(sides)} | {kept(found):.3f}; {points} |"
