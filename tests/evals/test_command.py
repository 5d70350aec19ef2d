"""`reason eval` as it is typed: what comes out, and what a mistake says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from reason_engine.cli.main import main


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of `reason eval WORDS` on the scripted engine."""
    monkeypatch.setattr(sys, "argv", ["reason", "eval", *words, *(["--engine", "scripted"] if words else [])])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_without_a_task_it_lists_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 0
    assert "game24-tot" in capsys.readouterr().out.split()


def test_a_run_prints_and_keeps_its_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["word-problems:steps=1-2", "-s", "direct,self-consistency:n=2", "--limit", "3", "--out", str(out)]
    assert run(monkeypatch, *words) == 0
    text = capsys.readouterr().out
    assert "## word-problems:steps=1-2" in text and "| self-consistency:n=2 | 3 |" in text
    assert len((out / "answers.jsonl").read_text().splitlines()) == 6
    (command,) = json.loads((out / "report.json").read_text())["about"]["commands"]
    assert command.startswith("reason eval word-problems:steps=1-2 -s direct,self-consistency:n=2 --limit 3")
    assert run(monkeypatch, *words, "--seed", "1") == 2
    assert "seed 0" in capsys.readouterr().err


def test_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "countdown", "-s", "direct", "--limit", "2", "--json") == 0
    *progress, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(line["done"], line["total"]) for line in progress] == [(1, 2), (2, 2)]
    assert last["report"]["rows"][0]["problems"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["word-problem"], "did you mean 'word-problems'"),
        (["word-problems:step=3"], "did you mean 'steps'"),
        (["word-problems:steps=5-3"], "steps: expected a range"),
        (["game24"], "--data"),
        (["game24", "--data", "/nowhere"], "24.csv does not exist"),
        (["countdown", "-s", "dirct"], "did you mean 'direct'"),
        (["countdown", "-s", "self-consistency:m=3"], "no key 'm'"),
        (["countdown", "-s", "self-consistency:n=0"], "n: "),
        (["countdown", "-s", "direct,direct"], "given twice"),
        (["countdown", "-s", ""], "empty name"),
        (["countdown", "--limit", "0"], "--limit"),
        (["countdown", "-c", "0"], "--concurrency"),
        (["countdown", "--url", "nowhere"], "--url 'nowhere'"),
        (["countdown", "--tokens", "0"], "--tokens"),
    ],
)
def test_mistakes_exit_2_and_name_the_key(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
