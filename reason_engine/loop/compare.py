"""Compares two models on the same problems, as one table: what was gained where it was wanted, what was lost elsewhere.

Accuracy with Wilson's interval and, between the two, the paired difference with McNemar's test; macro-F1 where the
answers are classes; loss on given rows; and how often a judge prefers the new answer (verifier `judge`, mode pairwise:
both orders, ties a half), with bootstrap intervals. The formulas stand in `evals.statistics`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from reason_engine.data.synthesize.teacher import Teacher
from reason_engine.evals.datasets.rows import class_name
from reason_engine.evals.records import Record
from reason_engine.evals.run import seed_of
from reason_engine.evals.statistics import bootstrap, macro_f1, paired_test, wilson
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import solve
from reason_engine.strategies import Strategy, VerifierChoice
from reason_engine.types import Answer, Path, Problem

CLASSES, EACH = 20, 5
"""Answers are classes where there are at most so many different ones, each with so many problems in the mean."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval; the interval is None where one pass over fixed rows has none."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one task. `part`: domain or old; `p`: of McNemar's test."""

    part: str
    task: str
    metric: str
    problems: int
    before: Figure | None
    after: Figure
    difference: Figure | None = None
    p: float | None = None


def accuracy(part: str, task: str, before: Sequence[Record], after: Sequence[Record]) -> Change:
    """Of the same problems in the same order."""
    test = paired_test([(new.correct, old.correct) for old, new in zip(before, after, strict=True)])
    first, second = (
        Figure(right / max(1, test.problems), wilson(right, test.problems))
        for right in (sum(record.correct for record in side) for side in (before, after))
    )
    change = Figure(test.difference, (test.low, test.high))
    return Change(part, task, "accuracy", test.problems, first, second, change, test.p)


def classes(
    part: str, task: str, problems: Sequence[Problem], before: Sequence[Record], after: Sequence[Record]
) -> Change | None:
    """Macro-F1, where the right answers are classes."""
    true = [class_name(None, problem.reference or "") for problem in problems]
    kinds = len(set(true))
    if not 1 < kinds <= CLASSES or len(true) < EACH * kinds:
        return None

    def class_of(name: str, record: Record) -> str:
        return name if record.correct else class_name(record.answer, record.text or "")

    triples = zip(true, before, after, strict=True)
    rows = [(name, class_of(name, old), class_of(name, new)) for name, old, new in triples]

    def f1(side: int) -> Callable[[Sequence[tuple[str, str, str]]], float]:
        return lambda some: macro_f1([(row[0], row[side]) for row in some])

    old, new = f1(1), f1(2)
    figures = (old, new, lambda some: new(some) - old(some))
    first, second, change = (Figure(of(rows), bootstrap(rows, of)) for of in figures)
    return Change(part, task, "macro-F1", len(rows), first, second, change)


def preference(part: str, task: str, shares: Sequence[float]) -> Change:
    """`shares`: how much of each problem the new answer won, in [0, 1]."""

    def mean(some: Sequence[float]) -> float:
        return sum(some) / len(some)

    figure = Figure(mean(shares), bootstrap(shares, mean))
    return Change(part, task, "win rate by judge", len(shares), None, figure)


def loss(part: str, rows: str, count: int, before: float, after: float) -> Change:
    """Of the answers of a file's rows, a token."""
    return Change(part, rows, "loss", count, Figure(before), Figure(after), Figure(after - before))


def markdown(changes: Sequence[Change], about: Mapping[str, object]) -> str:
    """The table, rates in percent, under what was done."""
    lines = ["# Before and after", "", *(f"- {key}: `{value}`" for key, value in about.items()), "", HEAD, RULE]
    for one in changes:
        scale = 1.0 if one.metric == "loss" else 100.0
        cells = (
            one.part, one.task.replace("|", "\\|"), one.metric + ("" if scale == 1 else ", %"), f"{one.problems:,}",
            _cell(one.before, scale), _cell(one.after, scale), _cell(one.difference, scale, "+"),
            "" if one.p is None else f"{one.p:.2g}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", NOTE, ""])


def _cell(figure: Figure | None, scale: float, sign: str = "") -> str:
    if figure is None:
        return ""
    form = f"{sign}.4f" if scale == 1 else f"{sign}.1f"
    text = format(scale * figure.value, form)
    if figure.interval is None:
        return text
    low, high = (format(scale * end, form) for end in figure.interval)
    return f"{text} ({low} to {high})"


HEAD = "| part | task | metric | n | before | after | difference | p |"
RULE = "|---|---|---|---:|---:|---:|---:|---:|"
NOTE = (
    "In brackets 95 % intervals: Wilson (accuracy), Bonett-Price (its difference), bootstrap (macro-F1, win rate). p: "
    "McNemar's exact test. Win rate: how often the judge prefers the new answer, asked in both orders; 50 is a draw."
)


class PairwiseJudgement(Strategy):
    """A judge asked about two texts that other runs made."""

    name: ClassVar[str] = "comparison"
    first: Path
    second: Path

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """The confidence is the second text's share."""
        _, score = await ctx.score([self.first, self.second])
        return Answer(self.second, None, score.value if score else None)


async def win_shares(
    judge: Teacher,
    params: dict[str, Any],
    problems: Sequence[Problem],
    before: Sequence[str],
    after: Sequence[str],
    seed: int,
    concurrency: int,
) -> list[float]:
    """How much of each problem the text after won, in [0, 1]. Texts that are the same share it without being asked
    about, as do those of which the judge says nothing. Raises what `solve` raises."""
    named = VerifierChoice(name="judge", params={"rank": "win-rate", **params, "mode": "pairwise"})
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int) -> float:
        texts = before[number], after[number]
        if texts[0] == texts[1]:
            return 0.5
        first, second = (Path(0, "", text) for text in texts)
        strategy = PairwiseJudgement.model_validate({"verifier": named, "first": first, "second": second})
        async with gate:
            outcome = await solve(
                strategy, problems[number], judge.engine, profile=judge.profile, seed=seed_of(seed, number),
                equality=judge.equality,
            )  # fmt: skip
        share = outcome.answer.confidence
        return 0.5 if share is None or math.isnan(share) else share

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(number)) for number in range(len(problems))]
    return [task.result() for task in running]
