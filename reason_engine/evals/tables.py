"""A report as Markdown: rates in percent, costs beside them, then the pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reason_engine.evals.report import Comparison, EvalReport, StrategyResult


def markdown(report: EvalReport) -> str:
    """Tables of rates in percent, with the commands that made them."""
    lines = ["# Evaluation", ""]
    for key, value in report.about.items():
        lines += [f"- {key}: " + ", ".join(f"`{item}`" for item in (value if isinstance(value, list) else [value]))]
    for task in dict.fromkeys(row.task for row in report.rows):
        lines += ["", f"## {task}", "", *_table([row for row in report.rows if row.task == task])]
        if pairs := [pair for pair in report.pairs if pair.task == task]:
            lines += ["", _PAIR_HEAD, "|---|---|---:|---:|---:|---:|"]
            lines += [_pair_text(pair) for pair in pairs]
    return "\n".join([*lines, "", _NOTE, ""])


def _table(rows: Sequence[StrategyResult]) -> list[str]:
    """One line a strategy; columns of pass@k where problems were answered several times."""
    columns = [*_COLUMNS]
    for k in dict.fromkeys(k for row in rows for k in row.pass_at):
        columns.insert(len(columns) - _AFTER, (f"pass@{k} %", _chance(k)))
    head = "| strategy | " + " | ".join(name for name, _ in columns) + " |"
    rule = "|---" + "|---:" * (len(columns) - 1) + "|---|"
    lines = [f"| {_cell(row.strategy)} | " + " | ".join(show(row) for _, show in columns) + " |" for row in rows]
    return [head, rule, *lines]


def _chance(k: int) -> Callable[[StrategyResult], str]:
    return lambda row: _percent(row.pass_at.get(k))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _stopped(row: StrategyResult) -> str:
    return ", ".join(f"{name} {count}" for name, count in row.stopped.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _pair_text(pair: Comparison) -> str:
    return (
        f"| {_cell(pair.first)} | {_cell(pair.second)} | {100 * pair.difference:+.1f} | {100 * pair.low:+.1f} to "
        f"{100 * pair.high:+.1f} | {pair.first_only} / {pair.second_only} | {pair.p:.2g} |"
    )


_COLUMNS: tuple[tuple[str, Callable[[StrategyResult], str]], ...] = (
    ("problems", lambda row: str(row.problems)),
    ("success %", lambda row: _percent(row.success)),
    ("95 % interval", lambda row: f"{_percent(row.low)} to {_percent(row.high)}"),
    ("unread %", lambda row: _percent(row.unread)),
    ("cut %", lambda row: _percent(row.cut)),
    ("no answer", lambda row: str(row.no_answer)),
    ("new tokens", lambda row: f"{row.new_tokens:,.0f}"),
    ("internal prompt tokens", lambda row: f"{row.internal_prompt_tokens:,.0f}"),
    ("seconds", lambda row: f"{row.seconds:.2f}"),
    ("stopped", _stopped),
)
_AFTER = 7
"""Columns after those of pass@k."""
_PAIR_HEAD = "| first | second | difference, points | 95 % interval | only first / only second | McNemar p |"
_NOTE = (
    "Means an answer. New tokens: all that were generated, discarded branches included. Internal prompt tokens: those "
    "of every call to the engine that no prefix cache held. Unread, cut: of the paths drawn those without a readable "
    "answer, and those that a limit ended. Intervals: Wilson (rates, over problems), Bonett-Price (differences). Where "
    "problems are answered several times, pairs are of the first answers. pass@k: of k answers to a problem, or of k "
    "paths where those were graded, one or more are right."
)
