"""What a run showed: success with its interval beside its cost, and paired comparisons. As data.

Where problems are answered several times, success is the mean share of right answers of a problem (which is pass@1),
its interval that of so many problems, which overstates it, and strategies are paired by their first answers: answers to
one problem are no independent trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from reason_engine.evals.records import Record
from reason_engine.evals.statistics import paired_test, pass_at, wilson


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """One strategy on one task. Rates are proportions, costs are means an answer. `right`: answers, of all repeats.
    `unread` and `cut` are shares of the paths drawn; None where nobody counted. `pass_at`: k to pass@k."""

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
    unread: float | None = None
    cut: float | None = None
    repeats: int = 1
    pass_at: Mapping[int, float] = field(default_factory=dict[int, float])


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


Problems = dict[tuple[int, int], list[Record]]
"""The answers to each problem, by index and seed."""


def summarise(records: Sequence[Record], about: Mapping[str, object], ks: Sequence[int] = ()) -> EvalReport:
    """Tasks and strategies in the order of their first record, then the parts of mixed tasks as tasks of their own.
    `ks`: of pass@k where problems are answered several times, or paths are graded; none: 1 and all."""
    groups: dict[tuple[str, str], Problems] = {}
    mixed = [replace(record, task=f"{record.task} · {record.part}") for record in records if record.part]
    for record in [*records, *mixed]:
        group = groups.setdefault((record.task, record.strategy), {})
        group.setdefault((record.index, record.seed), []).append(record)
    pairs: list[Comparison] = []
    for (task, first), (other, second) in combinations(groups, 2):
        if task == other:
            ones, others = groups[task, first], groups[task, second]
            shared = [(ones[key][0].correct, others[key][0].correct) for key in ones if key in others]
            pairs.append(Comparison(task, first, second, *paired_test(shared)))
    rows = (_row(*key, list(group.values()), ks) for key, group in groups.items())
    return EvalReport(dict(about), tuple(rows), tuple(pairs))


def _row(task: str, strategy: str, problems: Sequence[Sequence[Record]], ks: Sequence[int]) -> StrategyResult:
    records, count = [record for answers in problems for record in answers], len(problems)
    right = [sum(record.correct for record in answers) for answers in problems]
    shares = sum(ok / len(answers) for ok, answers in zip(right, problems, strict=True))
    costs = ("completion_tokens", "internal_prompt_tokens", "samples", "seconds")
    tokens, prompt, samples, seconds = (
        sum(getattr(record, name) for record in records) / len(records) for name in costs
    )
    tried = _tried(problems)
    fewest = min(drawn for _, drawn in tried)
    known = [k for k in ks or (1, fewest) if k <= fewest] if fewest > 1 else []
    return StrategyResult(
        task, strategy, count, sum(right), shares / count, *wilson(shares, count),
        sum(record.answer is None for record in records), tokens, prompt, samples, seconds,
        dict(sorted(Counter(record.stopped for record in records).items())),
        _share([(record.unread, _paths(record)) for record in records]),
        _share([(record.cut, _paths(record)) for record in records]), min(map(len, problems)),
        {k: sum(pass_at(k, ok, drawn) for ok, drawn in tried) / count for k in known},
    )  # fmt: skip


def _tried(problems: Sequence[Sequence[Record]]) -> list[tuple[int, int]]:
    """Of each problem how many were right, and of how many: of its paths where all were graded, else of its answers."""
    if all(record.paths_right is not None for answers in problems for record in answers):
        return [(sum(one.paths_right or 0 for one in some), sum(one.paths or 0 for one in some)) for some in problems]
    return [(sum(one.correct for one in some), len(some)) for some in problems]


def _paths(record: Record) -> int:
    return record.samples if record.paths is None else record.paths


def _share(counts: Sequence[tuple[int | None, int]]) -> float | None:
    """Of the paths of those records that counted them."""
    known = [(count, paths) for count, paths in counts if count is not None]
    whole = sum(paths for _, paths in known)
    return sum(count for count, _ in known) / whole if whole else None
