"""`reason adapt`: measured, taught, measured again; what goes on after a break, and what a mistake says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reason_engine.answers import Equality
from reason_engine.data.synthesize.teacher import Teacher
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.evals.records import Record
from reason_engine.loop import adapt as command
from reason_engine.loop import compare
from reason_engine.loop.adapt import AdaptConfig, adapt
from reason_engine.loop.compare import win_shares
from reason_engine.profile import Profile
from reason_engine.training.common.config import load
from reason_engine.types import Problem
from tests.models import write_model

TAUGHT = [{"prompt": f"Is {n} even?", "completion": "no" if n % 2 else "yes"} for n in range(8)]
OLD = [{"prompt": f"Say {n}", "completion": f"old {n}"} for n in range(4)]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def recipe(base: Path, folder: Path, **changes: Any) -> Path:
    data, old = lines(folder / "d.jsonl", TAUGHT), lines(folder / "old.jsonl", OLD)
    values = {
        "out": str(folder / "out"),
        "train": {
            "model": str(base), "data": str(data), "tokens": 16_000, "batch": 8, "threads": 1, "ewc": 0.001,
            "old": str(old), "optimiser": "adamw", "adamw_rate": 1e-2, "weight_decay": 0.0,
        },
        "domain": {"tasks": [f"rows:file={data}"], "rows": str(data)},
        "old": {"rows": str(old)}, "max_tokens": 6, "strategy": "direct:temperature=0",
        **changes,
    }  # fmt: skip
    (folder / "r.yaml").write_text(yaml.safe_dump(values))
    return folder / "r.yaml"


def run(file: Path, *settings: str, fresh: bool = False) -> tuple[str, list[str]]:
    said: list[str] = []
    config = load(AdaptConfig, file, settings)
    text = adapt(config, fresh=fresh, command="c", tell=lambda row: said.append(str(row.get("note", ""))))
    return text, said


def test_what_is_taught_is_gained_and_told(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "EACH", 2)
    file = recipe(base, tmp_path)
    text, _ = run(file)
    told = {(c["part"], c["metric"]): c for c in json.loads((tmp_path / "out/report.json").read_text())["changes"]}
    right = told["domain", "accuracy"]
    assert right["before"]["value"] == 0 and right["after"]["value"] == 1 and right["problems"] == 8
    assert right["difference"]["value"] == 1 and right["p"] == pytest.approx(2 / 256)
    assert told["domain", "macro-F1"]["after"]["value"] == 1
    assert told["domain", "loss"]["after"]["value"] < 0.3 * told["domain", "loss"]["before"]["value"]
    assert told["old", "loss"]["problems"] == 4
    assert (tmp_path / "out/report.md").read_text() == text
    assert re.search(r"\| accuracy, % \| 8 \| 0\.0 \(.*\) \| 100\.0 \(.*\) \| \+100\.0 \(.*\) \| 0\.0078 \|", text)
    assert (tmp_path / "out/model/model.safetensors").is_file()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained or asked again")

    with monkeypatch.context() as patched:
        patched.setattr(command, "run", never)
        patched.setattr("reason_engine.evals.solvers.LocalSolver.answer", never)
        again, said = run(file)
    assert again == text and any("trained already" in line for line in said)
    with pytest.raises(SetupError, match="another config; use --fresh"):
        run(file, "train.tokens=300")


async def test_a_judge_is_asked_in_both_orders() -> None:
    asked: list[str] = []

    def choose(prompt: str, options: tuple[str, ...]) -> tuple[float, ...]:
        asked.append(prompt)
        return (0.9, 0.1) if prompt.index("good") < prompt.index("bad") else (0.3, 0.7)

    equality = Equality()
    try:
        judge = Teacher(Scripted(choose=choose), Profile(), equality)
        problems = [Problem(f"question {n}") for n in range(3)]
        old, new = ["bad", "good", "same"], ["good", "bad", "same"]
        assert await win_shares(judge, {}, problems, old, new, 0, 2) == pytest.approx([0.8, 0.2, 0.5])
    finally:
        await equality.close()
    assert len(asked) == 4


def record(correct: bool, text: str) -> Record:
    return Record("t", "s", 0, 0, "q", None, correct, 1, 0, 0.1, "done", text=text)


def test_classes_are_told_only_where_answers_are_classes() -> None:
    problems = [Problem("q", reference=name) for name in ("spam", "ham") * 6]
    right = [record(True, problem.reference or "") for problem in problems]
    wrong = [record(problem.reference == "spam", "Spam.") for problem in problems]
    found = compare.classes("domain", "t", problems, wrong, right)
    assert found is not None and found.before is not None
    assert found.before.value == pytest.approx((2 * 6 / 18) / 2) and found.after.value == 1
    numbers = [Problem("q", reference=str(n)) for n in range(12)]
    assert compare.classes("domain", "t", numbers, wrong, right) is None


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"domain": {}}, "domain: name tasks or rows"),
        ({"train": {"data": "d", "tokens": 1, "architecture": {}}}, "train.model"),
        ({"train": {"model": "m", "data": "d"}}, "train: give either tokens or epochs"),
        ({"train": {"model": "m", "data": "d", "tokens": 1, "out": "x"}}, "train.out"),
        ({"train": {"model": "m", "data": "d", "tokens": 1, "peft": "prompt"}}, "train.peft"),
        ({"train": {"model": "m", "data": "d", "tokens": 1, "tokns": 2}}, "train.tokns"),
        ({"domains": {}}, "domains: unknown key; did you mean 'domain'"),
        ({"limit": 0}, "limit"),
    ],
)
def test_wrong_configs_are_refused(base: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SetupError, match=re.escape(said)):
        load(AdaptConfig, recipe(base, tmp_path, **changes))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"domain": {"tasks": ["unitz"]}}, "did you mean 'units'"),
        ({"domain": {"tasks": ["rows:file=none.jsonl"]}}, "none.jsonl"),
        ({"domain": {"rows": "none.jsonl"}}, "none.jsonl"),
        ({"strategy": "dircet"}, "did you mean 'direct'"),
        ({"judge": {"params": {"modes": 1}}}, "modes"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    base: Path, tmp_path: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(command, "open_engine", never)
    with pytest.raises(Exception, match=re.escape(said)):
        run(recipe(base, tmp_path, **changes))
    assert not (tmp_path / "out").exists()
