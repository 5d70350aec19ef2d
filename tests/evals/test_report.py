from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.evals.plot import frontier, plot
from reason_engine.evals.records import Record
from reason_engine.evals.report import summarise
from reason_engine.evals.tables import markdown


def record(strategy: str, index: int, correct: bool, *, task: str = "t", tokens: int = 10) -> Record:
    answer = "1" if correct else None
    return Record(task, strategy, index, 0, "q", answer, correct, tokens, 2 * tokens, 0.5, "done", 1)


def test_rows_and_pairs() -> None:
    vote = [record("vote", i, i < 8, tokens=100) for i in range(10)]
    direct = [record("direct", i, i in (0, 9), tokens=10) for i in range(10)]
    report = summarise([*vote, *direct], {"commands": ["reason eval t"]})
    first, second = report.rows
    assert (first.strategy, first.right, first.success, first.new_tokens) == ("vote", 8, 0.8, 100)
    assert (second.no_answer, second.internal_prompt_tokens, second.stopped) == (8, 20, {"done": 10})
    (pair,) = report.pairs
    assert (pair.first, pair.second, pair.first_only, pair.second_only) == ("vote", "direct", 7, 1)
    assert pair.difference == 0.6 and pair.low < 0.6 < pair.high
    assert pair.p == 2 * (1 + 8) / 2**8


def test_pairs_are_within_a_task_and_over_shared_problems() -> None:
    records = [record("a", 0, True), record("a", 1, True), record("b", 1, False), record("a", 0, True, task="u")]
    report = summarise(records, {})
    assert [(p.task, p.first, p.second, p.problems) for p in report.pairs] == [("t", "a", "b", 1)]


def test_markdown_shows_command_rates_and_costs() -> None:
    text = markdown(summarise([record("a", 0, True), record("b", 0, False)], {"commands": ["reason eval t -s a,b"]}))
    assert "`reason eval t -s a,b`" in text
    assert "| a | 1 | 100.0 | 20.7 to 100.0 | – | – | 0 | 10 | 20 | 0.50 | done 1 |" in text
    assert "| a | b | +100.0 |" in text


def test_unread_and_cut_are_shares_of_the_samples_that_were_counted() -> None:
    counted = [replace(record("vote", i, True), samples=8, unread=i, cut=2 * i) for i in range(3)]
    (row,) = summarise([*counted, record("vote", 3, True)], {}).rows
    assert (row.unread, row.cut) == (3 / 24, 6 / 24)
    assert "| 12.5 | 25.0 |" in markdown(summarise(counted, {}))


def repeated(strategy: str, *right: int, repeats: int = 4) -> list[Record]:
    """The first of the answers to each problem are right."""
    return [replace(record(strategy, i, r < count), repeat=r) for r in range(repeats) for i, count in enumerate(right)]


def test_pass_at_k_over_repeats() -> None:
    (row,) = summarise(repeated("direct", 2, 0, 4), {}, (1, 2)).rows
    assert (row.problems, row.repeats, row.right, row.success) == (3, 4, 6, 0.5)
    assert row.pass_at == {1: 0.5, 2: pytest.approx((5 / 6 + 0 + 1) / 3)}
    assert row.low < 0.5 < row.high and row.high - row.low > 0.7  # of three problems, not of twelve answers
    text = markdown(summarise(repeated("direct", 2, 0, 4), {}))
    assert "| pass@1 % | pass@4 % |" in text and "| 50.0 | 66.7 |" in text
    assert "| pass@" not in markdown(summarise([record("a", 0, True)], {}))


def test_pass_at_k_over_the_paths_that_were_graded() -> None:
    graded = [replace(record("vote", i, i > 0), paths=4, paths_right=i, unread=1, samples=9) for i in range(3)]
    (row,) = summarise(graded, {}).rows
    assert row.pass_at == {1: pytest.approx(3 / 12), 4: pytest.approx(2 / 3)}
    assert row.unread == 3 / 12  # of paths, not of whatever else was sampled
    assert summarise([*graded, record("vote", 3, True)], {}).rows[0].pass_at == {}
    fewer = [*graded, replace(record("vote", 3, True), paths=2, paths_right=2)]
    assert list(summarise(fewer, {}, (2, 4)).rows[0].pass_at) == [2]


def test_repeats_are_paired_by_their_first_answers() -> None:
    (pair,) = summarise([*repeated("a", 1, 1, 0), *repeated("b", 0, 4, 4)], {}).pairs
    assert (pair.problems, pair.first_only, pair.second_only) == (3, 1, 1)


def test_parts_of_a_mix_have_rows_of_their_own() -> None:
    mixed = [replace(record("a", i, i > 0), part="easy" if i < 2 else "hard") for i in range(4)]
    rows = summarise(mixed, {}).rows
    assert [(row.task, row.problems, row.right) for row in rows] == [
        ("t", 4, 3),
        ("t · easy", 2, 1),
        ("t · hard", 2, 2),
    ]


def test_the_frontier_is_what_nothing_cheaper_reaches() -> None:
    points = [(100.0, 80.0), (10.0, 20.0), (50.0, 80.0), (40.0, 10.0), (200.0, 90.0)]
    assert frontier(points) == [(10.0, 20.0), (50.0, 80.0), (200.0, 90.0)]
    assert frontier([]) == []


def test_a_report_of_auto_alone_can_be_drawn(tmp_path: Path) -> None:
    plot(summarise([record("auto", 0, True)], {}), tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_nothing_to_report() -> None:
    assert summarise([], {}).rows == ()
