"""`reason train` and `reason data` on the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from reason_engine.cli import data, train
from reason_engine.errors import SetupError, UnknownName
from reason_engine.progress import reporter
from reason_engine.training import trainers

TINY = """
out: {out}
tokens: 300
batch: 4
precision: fp32
threads: 1
log_every: 1
architecture: {{width: 32, layers: 1, intermediate: 32, heads: 1, kv_heads: 1, head_dim: 32, vocabulary: 300,
  tokenizer_examples: 20}}
mixture: [{{family: value, share: 1}}]
"""


def test_the_help_names_every_method() -> None:
    assert set(trainers) == set(train.METHODS.split(", "))


def app() -> typer.Typer:
    made = typer.Typer()
    train.add_to(made)
    data.add_to(made)
    return made


def test_train_writes_a_model_and_json_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(TINY.format(out=tmp_path / "out"))
    done = CliRunner().invoke(app(), ["train", "sft", "--config", str(recipe), "--set", "tokens=200", "--json"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(row) for row in done.stdout.splitlines() if row.startswith("{")]
    assert "memory: about" in "\n".join(row.get("note", "") for row in rows)
    assert rows[-1]["tokens"] >= 200 and rows[-1]["left"] == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_on_a_terminal_notes_and_the_bar_keep_to_their_lines() -> None:
    out = io.StringIO()
    tell, row = reporter(out, False), {"tokens": 50, "speed": 10, "left": 5, "loss": 0.25}
    for said in ({"note": "one"}, row, {**row, "tokens": 100, "left": 0}, {"note": "two"}, {"note": "three"}):
        tell(said)
    first, bars, *rest = out.getvalue().split("\n")
    assert (first, rest) == ("one", ["two", "three", ""])
    assert [bar[25:33].strip() for bar in bars.split("\r")[1:]] == ["50.0 %", "100.0 %"]
    tell = reporter(out := io.StringIO(), True)
    tell({"note": "one"})
    assert json.loads(out.getvalue()) == {"note": "one"}


@pytest.mark.parametrize(
    "method, settings, error, said",
    [("stf", [], UnknownName, "sft"), ("sft", ["--set", "tokns=3"], SetupError, "did you mean 'tokens'")],
)
def test_train_refuses(tmp_path: Path, method: str, settings: list[str], error: type[Exception], said: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(TINY.format(out=tmp_path / "out"))
    done = CliRunner().invoke(app(), ["train", method, "--config", str(recipe), *settings])
    assert isinstance(done.exception, error)
    assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_run_is_shown(tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.yaml", tmp_path / "out"
    recipe.write_text(TINY.format(out=out))
    words = ["train", "sft", "--config", str(recipe), "--set", "tokens=200"]
    assert CliRunner().invoke(app(), words).exit_code == 0
    assert "<svg" in (out / "report.html").read_text()
    (out / "report.html").unlink()
    done = CliRunner().invoke(app(), ["train", "show", str(out)])
    assert done.exit_code == 0 and "finished" in done.stdout and "report.html" in done.stdout, done.output
    assert (out / "report.html").is_file()
    found = json.loads(CliRunner().invoke(app(), ["train", "show", str(out), "--json"]).stdout)
    assert found["samples"] == [] and found["last"]["left"] == 0
    again = CliRunner().invoke(app(), [*words, "--json"])
    assert again.exit_code == 0 and "this run is finished" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show"], "show: which run"),
        (["show", "/no/run"], "holds no run"),
        (["sft"], "--config FILE"),
        (["sft", "runs/x"], "are for `reason train show RUN`"),
        (["sft", "--step", "3", "--config", "r.yaml"], "are for `reason train show RUN`"),
    ],
)
def test_words_that_do_not_go_together(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app(), ["train", *words])
    assert isinstance(done.exception, SetupError) and said in str(done.exception)


def test_generate(tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app(), ["data", "generate"])
    assert listed.exit_code == 0 and "countdown" in listed.stdout
    drawn = runner.invoke(app(), ["data", "generate", "--family", "value", "-n", "3", "--seed", "2"])
    assert [json.loads(row)["family"] for row in drawn.stdout.splitlines()] == ["value"] * 3
    written = runner.invoke(app(), ["data", "generate", "-f", "words", "-n", "4", "-o", str(tmp_path / "w.jsonl")])
    assert written.exit_code == 0 and len((tmp_path / "w.jsonl").read_text().splitlines()) == 4
    assert isinstance(runner.invoke(app(), ["data", "generate", "-f", "value", "--set", "x=1"]).exception, SetupError)
    assert runner.invoke(app(), ["data", "generate", "-f", "value", "-n", "0"]).exit_code == 2
