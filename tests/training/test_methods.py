"""Every supervised method on a random model: it learns its data, leaves what is served, and says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training.run import run
from tests.models import write_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:.*peft.*:UserWarning")

PAIRS = [{"prompt": f"Say {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(8)]
SOLVED = [
    {"prompt": f"Add {n}", "completions": [f"{n} good", "bad", "good again"], "labels": [1, 0, 1]} for n in range(8)
]
SPOKEN = [{"prompt": f"Say {n}", "completion": f"yes {n}"} for n in range(8)]
LABELLED = [{**row, "label": n % 2 == 0} for n, row in enumerate(SPOKEN)]
ROWS = {"sft": SPOKEN, "distill": SPOKEN, "dpo": PAIRS, "kto": LABELLED, "reward": PAIRS, "process-reward": SOLVED}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(method: str, base: Path, folder: Path, **changes: Any) -> list[dict[str, Any]]:
    """The log of a short run into `folder`/out."""
    folder.mkdir(parents=True, exist_ok=True)
    data = lines(folder / "rows.jsonl", ROWS[method])
    extra = {"teacher": base} if method == "distill" else {}
    config = trainers.get(method).config.model_validate(
        {
            "out": folder / "out", "model": base, "data": data, "tokens": 4000, "batch": 8, "precision": "fp32",
            "threads": 1, "log_every": 1, "adamw_rate": 2e-3, "optimiser": "adamw", "max_length": 128,
            "weight_decay": 0.0, **extra, **changes,
        }
    )  # fmt: skip
    run(method, config)
    return [json.loads(row) for row in (folder / "out" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "reward", "process-reward"])
def test_the_loss_falls(base: Path, tmp_path: Path, method: str) -> None:
    log = train(method, base, tmp_path)
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]
    if method != "sft":
        assert log[-1]["accuracy"] > 0.9
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["method"] == method and len(manifest["data"]) == 16
    told = manifest["metrics"]
    assert min(told["trained"], told["speed"], told["memory"] / 2**20) > 10
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_epochs_count_rows_and_the_result_is_judged(base: Path, tmp_path: Path) -> None:
    judged = lines(tmp_path / "judged.jsonl", PAIRS[:3])
    log = train("reward", base, tmp_path, tokens=0, epochs=6, held_out=judged)
    assert log[-1]["step"] == 6 and log[-1]["left"] == 0
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())["metrics"]["held_out"]
    assert said["accuracy"] == 1 and 0 < said["loss"] < log[0]["loss"]
    for wrong in ({"tokens": 0}, {"epochs": 1}):
        with pytest.raises(ValueError, match="either tokens or epochs"):
            train("reward", base, tmp_path, **wrong)


def test_at_first_the_policy_is_the_reference(base: Path, tmp_path: Path) -> None:
    from math import log

    first = train("dpo", base, tmp_path, tokens=1)[0]
    assert first["loss"] == pytest.approx(log(2), abs=1e-5) and first["margin"] == pytest.approx(0, abs=1e-5)
    first = train("kto", base, tmp_path / "kto", tokens=1)[0]
    assert first["loss"] == pytest.approx(0.5, abs=1e-5)
    assert first["baseline"] == pytest.approx(0, abs=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(base: Path, tmp_path: Path) -> None:
    log = train("distill", base, tmp_path, alpha=1.0, tokens=1)
    assert log[0]["loss"] == pytest.approx(0, abs=1e-5)
    other = write_model(tmp_path / "other", seed=5, scale=1.0, num_hidden_layers=1)
    log = train("distill", other, tmp_path / "d", alpha=1.0, teacher=base, tokens=6000)
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    tiny = {"width": 32, "layers": 1, "intermediate": 32, "heads": 1, "kv_heads": 1, "head_dim": 32}
    new = {"architecture": {**tiny, "context": 256}, "model": None, "teacher": base, "tokens": 300}
    assert train("distill", other, tmp_path / "new", **new)


def test_distill_refuses_another_tokenizer(base: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", num_hidden_layers=1)
    made = json.loads((other / "tokenizer.json").read_text())
    made["model"]["vocab"] = {**made["model"]["vocab"], "zz": 256}
    (other / "tokenizer.json").write_text(json.dumps(made))
    with pytest.raises(SetupError, match="another tokenizer"):
        train("distill", base, tmp_path / "d", teacher=other)


def test_old_rows_hold_the_weights(base: Path, tmp_path: Path) -> None:
    old = lines(tmp_path / "old.jsonl", [{"prompt": f"Tell {n}", "completion": f"old {n}"} for n in range(4)])

    def moved(folder: Path) -> float:
        from safetensors.torch import load_file

        before, after = load_file(base / "model.safetensors"), load_file(folder / "out" / "model.safetensors")
        return sum(float((after[k].float() - before[k].bfloat16().float()).pow(2).sum()) for k in before)

    free = train("sft", base, tmp_path / "free")
    held = train("sft", base, tmp_path / "held", ewc=1e4, old=old)
    assert "ewc" not in free[-1] and held[-1]["ewc"] > 0
    assert moved(tmp_path / "held") < 0.5 * moved(tmp_path / "free")
    assert train("dpo", base, tmp_path / "dpo", ewc=1.0, old=old, tokens=300)[-1]["ewc"] >= 0
    pairs = lines(tmp_path / "pairs.jsonl", PAIRS)
    assert train("reward", base, tmp_path / "reward", ewc=1.0, old=pairs, tokens=300)[-1]["ewc"] >= 0


@pytest.mark.parametrize("method", ["dpo", "kto", "reward", "process-reward"])
def test_rows_of_another_kind_are_refused(base: Path, tmp_path: Path, method: str) -> None:
    data = lines(tmp_path / "spoken.jsonl", SPOKEN)
    with pytest.raises(SetupError, match=r"prompt\+completion does not fit; wanted: "):
        train(method, base, tmp_path, data=data)
    bad = lines(tmp_path / "bad.jsonl", [*ROWS[method], {"prompt": "x", "label": 7}])
    with pytest.raises(SetupError, match=r"bad\.jsonl:9: "):
        train(method, base, tmp_path, data=bad)
    with pytest.raises(SetupError, match="missing"):
        train(method, base, tmp_path, data=tmp_path / "missing.jsonl")
