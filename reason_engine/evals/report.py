"""What a run showed: success with its interval beside its cost, and paired comparisons. As data, Markdown, JSON and a
plot of success against generated tokens, one panel a task."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

from reason_engine.evals.run import Record
from reason_engine.evals.statistics import paired_test, wilson


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """One strategy on one task. Rates are proportions, costs are means a problem."""

    task: str
    strategy: str
    problems: int
    right: int
    success: float
    low: float
    high: float
    no_answer: int
    new_tokens: float
    internal_prompt_tokens: float
    samples: float
    seconds: float
    stopped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two strategies on the problems both answered; `difference` is first minus second."""

    task: str
    first: str
    second: str
    problems: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class EvalReport:
    """`about`: the commands, the model and the settings behind the figures."""

    about: Mapping[str, object]
    rows: tuple[StrategyResult, ...]
    pairs: tuple[Comparison, ...]


def summarise(records: Sequence[Record], about: Mapping[str, object]) -> EvalReport:
    """Tasks and strategies in the order of their first record, then the parts of mixed tasks as tasks of their own."""
    groups: dict[tuple[str, str], dict[tuple[int, int], Record]] = {}
    mixed = [replace(record, task=f"{record.task} · {record.part}") for record in records if record.part]
    for record in [*records, *mixed]:
        groups.setdefault((record.task, record.strategy), {})[record.index, record.seed] = record
    pairs: list[Comparison] = []
    for (task, first), (other, second) in combinations(groups, 2):
        if task == other:
            ones, others = groups[task, first], groups[task, second]
            shared = [(ones[key].correct, others[key].correct) for key in ones if key in others]
            pairs.append(Comparison(task, first, second, *paired_test(shared)))
    rows = (_row(*key, list(group.values())) for key, group in groups.items())
    return EvalReport(dict(about), tuple(rows), tuple(pairs))


def markdown(report: EvalReport) -> str:
    """Tables of rates in percent, with the commands that made them."""
    lines = ["# Evaluation", ""]
    for key, value in report.about.items():
        lines += [f"- {key}: " + ", ".join(f"`{item}`" for item in (value if isinstance(value, list) else [value]))]
    for task in dict.fromkeys(row.task for row in report.rows):
        lines += ["", f"## {task}", "", _HEAD, "|---|---:|---:|---:|---:|---:|---:|---:|---|"]
        lines += [_row_text(row) for row in report.rows if row.task == task]
        if pairs := [pair for pair in report.pairs if pair.task == task]:
            lines += ["", _PAIR_HEAD, "|---|---|---:|---:|---:|---:|"]
            lines += [_pair_text(pair) for pair in pairs]
    return "\n".join([*lines, "", _NOTE, ""])


def write(report: EvalReport, out: Path) -> None:
    """`report.md`, `report.json` and the plot `report.png` in an existing folder."""
    (out / "report.md").write_text(markdown(report), "utf-8")
    (out / "report.json").write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", "utf-8")
    plot(report, out / "report.png")


def _row(task: str, strategy: str, records: Sequence[Record]) -> StrategyResult:
    count, right = len(records), sum(record.correct for record in records)
    costs = ("completion_tokens", "internal_prompt_tokens", "samples", "seconds")
    tokens, prompt, samples, seconds = (sum(getattr(record, name) for record in records) / count for name in costs)
    missing = sum(record.answer is None for record in records)
    stopped = dict(sorted(Counter(record.stopped for record in records).items()))
    return StrategyResult(
        task, strategy, count, right, right / count, *wilson(right, count), missing, tokens, prompt, samples, seconds,
        stopped,
    )  # fmt: skip


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row_text(row: StrategyResult) -> str:
    stopped = ", ".join(f"{name} {count}" for name, count in row.stopped.items())
    interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return (
        f"| {_cell(row.strategy)} | {row.problems} | {100 * row.success:.1f} | {interval} | "
        f"{row.no_answer} | {row.new_tokens:,.0f} | {row.internal_prompt_tokens:,.0f} | {row.seconds:.2f} | {stopped} |"
    )


def _pair_text(pair: Comparison) -> str:
    return (
        f"| {_cell(pair.first)} | {_cell(pair.second)} | {100 * pair.difference:+.1f} | {100 * pair.low:+.1f} to "
        f"{100 * pair.high:+.1f} | {pair.first_only} / {pair.second_only} | {pair.p:.2g} |"
    )


_HEAD = (
    "| strategy | problems | success % | 95 % interval | no answer | new tokens | internal prompt tokens | seconds "
    "| stopped |"
)
_PAIR_HEAD = "| first | second | difference, points | 95 % interval | only first / only second | McNemar p |"
_NOTE = (
    "Means a problem. New tokens: all that were generated, discarded branches included. Internal prompt tokens: those "
    "of every call to the engine that no prefix cache held. Intervals: Wilson (rates), Bonett-Price (differences)."
)


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
