"""The report of a compression: every figure of both sides, intervals, who serves it, and what is not measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from reason_engine.compression import Report, Served
from reason_engine.compression.compare import Accuracy, compare_accuracy, compare_speed
from reason_engine.compression.process import MeasureError, measure_in_process
from reason_engine.compression.report import CompressionReport, Side
from reason_engine.compression.run import prepare, run
from reason_engine.errors import SetupError
from reason_engine.progress import silent
from reason_engine.training.common.models import load_model
from tests.models import write_model

TEXT = "Numbers are counted from nought, and no two of them are the same. " * 60
SETTINGS = [
    "report.tasks={word-problems: 'direct:temperature=0'}", "report.limit=3", "report.pairs=2", "rows=4", "length=64",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny")


def test_every_figure_is_there(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text(TEXT * 3)
    report = run("int8", prepare("int8", None, [*SETTINGS, "rows=16", f"data={text}"]), str(model), tmp_path / "o")
    assert json.loads(json.dumps(report)) == json.loads((tmp_path / "o" / "report.json").read_text())
    before, after = report["before"], report["after"]
    assert 0.25 < after["size"] / before["size"] < 0.6
    assert 0 < before["embeddings"] == after["embeddings"] < after["size"]
    assert after["resident"] > 0 and before["dtype"] == "float32"
    for side in (before, after):
        assert 1 < side["perplexity"]["low"] <= side["perplexity"]["value"] <= side["perplexity"]["high"]
    assert report["accuracy"][0]["problems"] == 3
    assert [one["rows"] for one in report["speed"]] == [1, 16]
    page = (tmp_path / "o" / "report.md").read_text()
    for said in (
        "resident memory",
        "perplexity of",
        "without embedding and output matrix",
        "word-problems",
        "tokens/s, 16",
        "vLLM, CPU: yes, W8A8",
    ):
        assert said in page


def test_perplexity_is_that_of_transformers(model: Path) -> None:
    rows = [list(range(10, 60)), list(range(40, 70))]
    loaded, _ = load_model(model)
    for (total, count), ids in zip(measure_in_process(model, rows).rows, rows, strict=True):
        with torch.no_grad():
            logits = loaded(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        exact = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum").item()
        assert count == len(ids) - 1 and math.isclose(total, exact, rel_tol=1e-4)


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(MeasureError, match=r"tokenizer\.json: not found"):
        measure_in_process(tmp_path)


def test_what_cannot_be_loaded_here_has_its_size_and_the_reason() -> None:
    report = CompressionReport(
        "gptq", Served("no", "no", "yes, W8A16"), Side(100), Side(40), notes=("not measured here: why",)
    )
    page = report.to_markdown()
    assert "| 0.400 |" in page and "not measured here: why." in page and "perplexity of" not in page


def test_accuracy_kept_and_its_paired_difference() -> None:
    found = Accuracy("t", "s", 100, 80, 76, (-0.04, -0.1, 0.02), 0.2)
    assert found.kept == 0.95
    page = CompressionReport("m", Served("y", "y", "y"), Side(1), Side(1), (found,)).to_markdown()
    assert "80.0 % [71.1, 86.7] | 76.0 % [66.8, 83.3] | 0.950; -4.0 points [-10.0, +2.0], p = 0.2" in page


async def test_what_is_not_answered_in_time_is_left_out_on_both_sides_and_said(model: Path) -> None:
    options = Report.model_validate({"limit": 3})
    tasks = {"word-problems": "direct:temperature=0"}
    found, short = await compare_accuracy(model, model, tasks, options, 0, 0.0, silent)
    assert found == [] and short == ["word-problems: 0 of 3 problems were answered in the time of report.seconds"]


async def test_two_pairs_are_taken_whatever_the_time(model: Path) -> None:
    told: list[object] = []
    found = await compare_speed(model, model, 5, 1, told.append, tokens=4, seconds=0.0)
    assert [one.rows for one in found] == [1, 16] and len(told) == 4


def test_an_answer_is_no_longer_than_max_tokens(model: Path, tmp_path: Path) -> None:
    settings = ["report.tasks={word-problems: 'direct:temperature=0'}", "report.limit=2", "report.speed=false"]
    told: list[object] = []
    config = prepare("int8", None, [*settings, "report.max_tokens=1", "report.perplexity=false"])
    report = run("int8", config, str(model), tmp_path / "o", told.append)
    assert report["accuracy"][0]["problems"] == 2


def test_a_model_that_knows_no_task_is_asked_none_unless_it_is_said(model: Path, tmp_path: Path) -> None:
    settings = ["report.perplexity=false", "report.speed=false"]
    report = run("int8", prepare("int8", None, settings), str(model), tmp_path / "o")
    assert report["accuracy"] == () and "name report.tasks" in report["notes"][0]
    with pytest.raises(SetupError, match="gsm8k"):
        run("int8", prepare("int8", None, [*settings, f"report.data={tmp_path}"]), str(model), tmp_path / "p")
