"""The user's own problems as a task, and the figures of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reason_engine.answers import Equality
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets.rows import class_name
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.spec import Spec, build
from reason_engine.evals.statistics import bootstrap, macro_f1

ROWS = [
    {"prompt": "2 + 2?", "answer": "4"},
    {"prompt": "A complaint? It broke.", "answer": "Yes"},
    {"prompt": "Half?", "answer": "x\n#### 0.5"},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_rows_are_graded_by_value_or_by_text(tmp_path: Path) -> None:
    task = build(tasks, Spec("rows", {"file": str(lines(tmp_path / "r.jsonl", ROWS))}))
    number, name, half = task.problems(None, 0, None)
    assert [p.meta["index"] for p in task.problems(2, 1, None)] == sorted(
        {p.meta["index"] for p in task.problems(2, 1, None)}
    )
    equality = Equality()
    try:
        for problem, answer, text, right in (
            (number, "4.0", "so 4", True), (number, None, "4", True), (number, "5", "5", False),
            (name, None, " yes.", True), (name, None, "Yes, it is", False), (name, "YES", "Answer: YES", True),
            (half, "1/2", "", True), (half, None, "", False),
        ):  # fmt: skip
            assert await task.grade(problem, answer, text, equality) is right, (problem.question, text)
    finally:
        await equality.close()
    assert class_name(None, " Not  a\nComplaint. ") == "not a complaint"


async def test_conversations_are_problems_too(tmp_path: Path) -> None:
    turns = ["hello", "hi", "2 + 3?", "2 + 3 = 5\nAnswer: 5"]
    said = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    (one,) = build(tasks, Spec("rows", {"file": str(lines(tmp_path / "c.jsonl", [{"messages": said}]))})).problems(
        None, 0, None
    )
    assert one.question == "2 + 3?" and one.reference == "5" and len(one.turns()) == 3


def test_wrong_files_are_told_by_line(tmp_path: Path) -> None:
    bad = lines(tmp_path / "bad.jsonl", [*ROWS, {"prompt": "x"}])
    with pytest.raises(SetupError, match=r"bad\.jsonl:4: .*answer"):
        build(tasks, Spec("rows", {"file": str(bad)})).problems(None, 0, None)
    with pytest.raises(SetupError, match=r"none\.jsonl"):
        build(tasks, Spec("rows", {"file": str(tmp_path / "none.jsonl")})).problems(None, 0, None)
    with pytest.raises(SetupError, match="file"):
        build(tasks, Spec("rows"))


def test_macro_f1_counts_classes_alike() -> None:
    # a: TP 3 FP 1 FN 1 -> 3/4; b: TP 1 FP 1 FN 1 -> 1/2; what is no class is only missed
    pairs = [("a", "a")] * 3 + [("a", "b"), ("b", "b"), ("b", "a")]
    assert macro_f1(pairs) == pytest.approx((0.75 + 0.5) / 2)
    assert macro_f1([("a", "a"), ("b", "nothing")]) == pytest.approx(0.5)
    assert macro_f1([]) == 0


def test_bootstrap_holds_the_figure_and_repeats() -> None:
    def mean(some: Any) -> float:
        return sum(some) / len(some)

    low, high = bootstrap([0.0] * 50 + [1.0] * 50, mean)
    assert 0.39 <= low <= 0.42 and 0.58 <= high <= 0.61
    assert bootstrap([0.0] * 50 + [1.0] * 50, mean) == (low, high)
    assert bootstrap([1.0, 1.0], mean) == (1.0, 1.0)


def test_a_record_keeps_its_text_only_where_it_has_one(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "a.jsonl")
    with_text = Record("t", "s", 0, 0, "q", None, True, 1, 0, 0.1, "done", text="all of it")
    without = Record("t", "s", 1, 0, "q", None, True, 1, 0, 0.1, "done")
    file.append(with_text)
    file.append(without)
    assert "text" not in json.loads((tmp_path / "a.jsonl").read_text().splitlines()[1])
    assert list(file.load().values()) == [with_text, without]
