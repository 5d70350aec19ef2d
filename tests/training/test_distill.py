"""Distillation on the student's own answers: who writes them, what is learned from them, and going on after a kill."""

from __future__ import annotations

import json
import os
import tempfile
from math import log
from pathlib import Path
from typing import Any

import pytest

from reason_engine.data.formats.rows import Conversation, Text
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.run import run
from reason_engine.training.supervised.distill import DistillConfig, OwnAnswer, SoftAnswers, Student, divergence
from reason_engine.types import Message
from tests.models import write_model
from tests.training.test_methods import SPOKEN, lines

torch = pytest.importorskip("torch")
TINY = {"width": 32, "layers": 1, "intermediate": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "context": 64}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("teacher") / "model", scale=1.0, num_hidden_layers=1)


@pytest.fixture(scope="module")
def pupil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("pupil") / "model", seed=5, scale=1.0, num_hidden_layers=1)


def config(folder: Path, teacher: Path, **changes: Any) -> DistillConfig:
    folder.mkdir(parents=True, exist_ok=True)
    return DistillConfig.model_validate(
        {
            "out": folder / "out", "data": lines(folder / "d.jsonl", SPOKEN), "teacher": teacher, "tokens": 3000,
            "batch": 8, "precision": "fp32", "threads": 1, "log_every": 1, "adamw_rate": 3e-3, "weight_decay": 0,
            "optimiser": "adamw", "on_policy": 1.0, "max_tokens": 12, **changes,
        }
    )  # fmt: skip


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (folder / "out" / "log.jsonl").read_text().splitlines()]


def test_the_divergences() -> None:
    p, q = (torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.2, 0.5, 0.3]]))

    def kl(a: Any, b: Any) -> float:
        return sum(float(x) * log(float(x) / float(y)) for x, y in zip(a[0], b[0], strict=True))

    middle = 0.3 * p + 0.7 * q
    expected = {0.0: kl(p, q), 1.0: kl(q, p), 0.3: 0.3 * kl(p, middle) + 0.7 * kl(q, middle)}
    for beta, value in expected.items():
        assert divergence(p.log(), q.log(), beta).item() == pytest.approx(value, abs=1e-6)


def test_the_student_answers_with_its_weights_of_the_moment(teacher: Path, pupil: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.forward import body_of
    from reason_engine.training.common.models import load_model

    model, tokenizer = load_model(pupil)
    rows = [Conversation((Message("user", f"Say {n}"), Message("assistant", "yes"))) for n in range(4)]
    told = config(tmp_path, teacher, model=pupil, alpha=0.1)
    with Student(pupil, 12, 1) as student:
        made = SoftAnswers(told, model, tokenizer, student)

        def drawn() -> list[Any]:
            torch.manual_seed(1)
            return made.batch([*rows, Text("plain text")])

        first, again = drawn(), drawn()
        assert first == again and [isinstance(one, OwnAnswer) for one in first] == [True] * 4 + [False]
        given = made.encode(rows)
        for one, known in zip(first, given, strict=False):
            begin = known.weights.index(1.0)
            assert one.ids[:begin] == known.ids[:begin] and one.weights[:begin] == [0.0] * begin
            assert set(one.weights[begin:]) == {1.0} and 1 <= len(one.ids) - begin <= 12
        loss, seen = made.loss(first[:4], body_of(model, False))
        assert seen["own"] == 4
        other = SoftAnswers(config(tmp_path, teacher, model=pupil, alpha=1.0), model, tokenizer, student)
        assert other.loss(first[:4], body_of(model, False))[0].item() == pytest.approx(loss.item(), abs=1e-5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        assert drawn() != first


def test_a_student_learns_from_its_own_answers(teacher: Path, pupil: Path, tmp_path: Path) -> None:
    run("distill", config(tmp_path, teacher, model=pupil, beta=0.5, tokens=12000))
    log = log_of(tmp_path)
    assert all(row["own"] == 1 for row in log)
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('peft')", reason="extra train")
@pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:.*peft.*:UserWarning")
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_student_answers_under_its_adapter(
    teacher: Path, pupil: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    run("distill", config(tmp_path, teacher, model=pupil, beta=0.5, tokens=9000, peft=kind, adamw_rate=0.01))
    log = log_of(tmp_path)
    assert all(row["own"] == 1 for row in log) and log[-1]["loss"] < 0.8 * log[0]["loss"]
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_new_student_leaves_nothing_behind(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    run("distill", config(tmp_path, teacher, architecture=TINY, on_policy=0.5, tokens=900))
    shares = [row["own"] for row in log_of(tmp_path)]
    assert 0 < sum(shares) < len(shares)
    assert not list((tmp_path / "scratch").iterdir())


def test_a_broken_run_draws_the_same_answers_again(
    teacher: Path, pupil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": pupil, "on_policy": 0.5, "save_every": 700}
    run("distill", config(tmp_path / "whole", teacher, **changes))
    real, count = os.fsync, 0

    def full(file: int) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        real(file)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SetupError, match="cannot be written"):
            run("distill", config(tmp_path / "broken", teacher, **changes))
    run("distill", config(tmp_path / "broken", teacher, **changes))
    whole, broken = log_of(tmp_path / "whole")[-1], log_of(tmp_path / "broken")[-1]
    assert broken["tokens"] == whole["tokens"]
    assert broken["loss"] == pytest.approx(whole["loss"], abs=1e-6)


def test_a_teacher_that_is_not_there_is_told_before_torch(pupil: Path, tmp_path: Path) -> None:
    said: list[Any] = []
    with pytest.raises(ModelLoadError, match=r"teacher: .*no checkpoint folder"):
        run("distill", config(tmp_path, tmp_path / "none", model=pupil), tell=said.append)
    assert not said


def test_what_does_not_go_together_is_refused(teacher: Path, pupil: Path, tmp_path: Path) -> None:
    for key, value in {"on_policy": 1.5, "beta": -1, "max_tokens": 0, "alpha": 2}.items():
        with pytest.raises(ValueError, match=key):
            config(tmp_path, teacher, model=pupil, **{key: value})
