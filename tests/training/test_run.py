"""A run that meets trouble: refused before it begins, or stopped so that nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reason_engine.errors import MissingExtra, ModelLoadError, SetupError
from reason_engine.training.common import forward as _forward
from reason_engine.training.common import preflight as _preflight
from reason_engine.training.run import run
from reason_engine.training.supervised.sft import SftConfig
from tests.models import UNSERVABLE, changed, write_model
from tests.training.test_methods import SPOKEN, lines

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def config(base: Path, folder: Path, **changes: Any) -> SftConfig:
    return SftConfig.model_validate(
        {
            "out": folder / "out", "model": base, "data": lines(folder / "d.jsonl", SPOKEN), "tokens": 3000,
            "batch": 8, "precision": "fp32", "threads": 1, "log_every": 1, "save_every": 700, **changes,
        }
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(row)["loss"] for row in (folder / "out" / "log.jsonl").read_text().splitlines()]


def test_a_loss_that_is_no_number_stops_and_keeps(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("whole", "broken"):
        (tmp_path / part).mkdir()
    run("sft", config(base, tmp_path / "whole", batch=5))
    count, real = 0, _forward.answer_loss

    def broken(*args: Any) -> Any:
        nonlocal count
        count += 1
        return real(*args) * (float("nan") if count == 5 else 1.0)

    monkeypatch.setattr(_forward, "answer_loss", broken)
    with pytest.raises(SetupError, match=r"step 5: the loss is nan.*is kept.*lower rates"):
        run("sft", config(base, tmp_path / "broken", batch=5))
    run("sft", config(base, tmp_path / "broken", batch=5, clip=1.0))
    assert losses(tmp_path / "broken") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    count = 0
    with pytest.raises(SetupError, match="step 5"):
        run("sft", config(base, tmp_path / "broken"), fresh=True)
    with pytest.raises(SetupError, match="--fresh"):
        run("sft", config(base, tmp_path / "broken", seed=2))
    run("sft", config(base, tmp_path / "broken", seed=2, tokens=300), fresh=True)


def test_a_full_disk_leaves_the_checkpoint_before(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, real = 0, os.fsync

    def full(file: int) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"cannot be written; the one before it stays: .*No space left"):
        run("sft", config(base, tmp_path))
    assert sorted(file.name for file in (tmp_path / "out" / "checkpoint").iterdir()) == ["micro_tokens", "state.pt"]
    from transformers import Qwen3ForCausalLM

    def save_pretrained(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left")

    with monkeypatch.context() as patched:
        patched.setattr(Qwen3ForCausalLM, "save_pretrained", save_pretrained)
        with pytest.raises(SetupError, match="the model cannot be written"):
            run("sft", config(base, tmp_path))
    assert (tmp_path / "out" / "checkpoint" / "state.pt").is_file()
    run("sft", config(base, tmp_path))
    (tmp_path / "whole").mkdir()
    run("sft", config(base, tmp_path / "whole"))
    assert losses(tmp_path)[-1] == pytest.approx(losses(tmp_path / "whole")[-1], abs=1e-6)


CHILD = """
import os, signal, sys
from pathlib import Path
from reason_engine.training.run import prepare, run
real, seen = os.fsync, []
def fsync(file):
    seen.append(file)
    if len(seen) == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
    real(file)
os.fsync = fsync
run("sft", prepare("sft", Path(sys.argv[1])))
"""


def recipe(base: Path, folder: Path, **changes: Any) -> Path:
    file = folder / "r.yaml"
    file.write_text(config(base, folder, **changes).model_dump_json(exclude_none=True))
    return file


def test_killed_while_it_writes_a_checkpoint(base: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    run("sft", config(base, tmp_path / "whole"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(recipe(base, tmp_path)), "2"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    names = {file.name for file in (tmp_path / "out" / "checkpoint").iterdir()}
    assert names == {"micro_tokens", "state.pt", "state.new"}
    run("sft", config(base, tmp_path))
    assert losses(tmp_path)[-1] == pytest.approx(losses(tmp_path / "whole")[-1], abs=1e-6)
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.slow
def test_killed_at_twenty_random_moments(base: Path, tmp_path: Path) -> None:
    """Each part of the run lives a random while after its first step."""
    changes = {"tokens": 1_000_000, "save_every": 3_000, "log_every": 1}
    (tmp_path / "whole").mkdir()
    whole = run("sft", config(base, tmp_path / "whole", **changes))["metrics"]["loss"]
    file, chance, log = recipe(base, tmp_path, **changes), random.Random(4), tmp_path / "out" / "log.jsonl"
    for _ in range(20):
        size = log.stat().st_size if log.exists() else 0
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(file), "0"], cwd=ROOT)
        while child.poll() is None and (log.stat().st_size if log.exists() else 0) == size:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    assert run("sft", config(base, tmp_path, **changes))["metrics"]["loss"] == pytest.approx(whole, abs=1e-6)


def test_a_preflight_says_what_it_found(base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run("sft", config(base, tmp_path, tokens=100), tell=lambda row: said.append(str(row.get("note", ""))))
    text = "\n".join(said)
    for part in ("Qwen3ForCausalLM, by vLLM", "format prompt+completion", "8 rows", "memory: about", "disk: "):
        assert part in text


@pytest.mark.parametrize("file, key, value, said", UNSERVABLE)
def test_a_base_that_cannot_be_served_is_refused(
    base: Path, tmp_path: Path, file: str, key: str, value: object, said: str
) -> None:
    other = changed(base, tmp_path / "other", file, key, value)
    with pytest.raises(SetupError, match=said):
        run("sft", config(other, tmp_path))
    assert not (tmp_path / "out").exists()


def test_too_little_room_is_said_first(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_preflight, "available", lambda: (10**6, "here"))
        with pytest.raises(SetupError, match=r"memory: about .* free here.*lower micro_tokens"):
            run("sft", config(base, tmp_path))
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda _: shutil._ntuple_diskusage(10, 10, 10**4),  # type: ignore[attr-defined]
    )
    with pytest.raises(SetupError, match="too little for a checkpoint"):
        run("sft", config(base, tmp_path))


def test_faults_are_found_without_torch(base: Path, tmp_path: Path) -> None:
    lines(tmp_path / "bad.jsonl", [*SPOKEN, {"prompt": "x"}])
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pathlib import Path\n"
        "from reason_engine.errors import SetupError\n"
        "from reason_engine.training.run import prepare, run\n"
        "for data in sys.argv[2:]:\n"
        "    try: run('sft', prepare('sft', Path(sys.argv[1]), [f'data={data}']))\n"
        "    except SetupError as error: print(error)\n"
    )
    paths = [str(tmp_path / name) for name in ("bad.jsonl", "none.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe(base, tmp_path)), *paths],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert "bad.jsonl:9: `completion/response` is missing" in first and "none.jsonl" in second


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="no checkpoint folder"):
        run("sft", config(tmp_path / "none", tmp_path))


def test_a_model_that_caps_its_logits_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen3ForCausalLM

    real = Qwen3ForCausalLM.forward

    def capped(self: Any, *args: Any, **fields: Any) -> Any:
        made = real(self, *args, **fields)
        made.logits = made.logits.tanh()
        return made

    monkeypatch.setattr(Qwen3ForCausalLM, "forward", capped)
    with pytest.raises(SetupError, match="a qwen3 model scales or caps its logits"):
        run("sft", config(base, tmp_path))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_other_kinds_of_models(tmp_path: Path, kind: str) -> None:
    run("sft", config(write_model(tmp_path / "model", kind), tmp_path, tokens=1500, muon_rate=0.005))
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtra, match="tensorboard is not installed"):
            run("sft", config(base, tmp_path, tensorboard=True, tokens=300))
    pytest.importorskip("tensorboard")
    run("sft", config(base, tmp_path, tensorboard=True, tokens=300))
    assert list((tmp_path / "out" / "tensorboard").glob("events.*"))


def test_the_profile_is_carried_over_without_its_policy(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    (other / "reason.json").write_text(json.dumps({"step_end": ";", "auto": {"weights": "x"}}))
    run("sft", config(other, tmp_path, tokens=100))
    assert json.loads((tmp_path / "out" / "reason.json").read_text()) == {"step_end": ";"}
