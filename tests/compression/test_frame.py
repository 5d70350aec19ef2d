"""`reason compress`: wrong input is named before anything heavy is loaded, the output folder is whole or absent."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reason_engine.cli import compress as command
from reason_engine.compression import compressors
from reason_engine.compression.run import prepare, run
from reason_engine.errors import ModelLoadError, SetupError
from tests.cli.conftest import reason  # noqa: F401  (a fixture)
from tests.models import write_model

QUIET = ["report=false"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("m") / "tiny", dtype="bfloat16", tie_word_embeddings=True)
    profile = {"description": "tiny", "auto": {"weights": "x", "cases": []}}
    (folder / "reason.json").write_text(json.dumps(profile))
    return folder


def test_the_help_names_every_method() -> None:
    assert set(compressors) == set(command.METHODS.split(", "))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("int9", "m", "o"), "did you mean 'int8'?"),
        (("int8", "m", "o", "--set", "smoth=1"), "smoth: unknown key; did you mean 'smooth'?"),
        (("int8", "m", "o", "--set", "smooth=2"), "smooth: Input should be less than 1"),
        (("int8", "m", "o", "--set", "smooth=0.5"), "name data or a mixture"),
        (("int8", "m", "o", "--set", "report.limit=0"), "report.limit: "),
        (("int8", "m", "o", "--set", "report.tasks={word-problem: direct}"), "did you mean 'word-problems'?"),
        (("int8", "m", "o", "--set", "report.tasks={word-problems: dirct}"), "did you mean 'direct'?"),
        (("int8", "m", "o", "--set", "mixture=[{family: word, share: 1}]"), "did you mean 'words'?"),
        (("int8", "m", "o", "--config", "/no/such.yaml"), "/no/such.yaml: "),
        (("int8", "/no/such/model", "o"), "/no/such/model: no such model folder"),
    ],
)
def test_wrong_input_is_one_line(reason, words: tuple[str, ...], said: str) -> None:  # noqa: F811
    ran = reason("compress", *words)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1


def test_a_wrong_key_loads_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "for name in ('torch', 'transformers', 'gptqmodel'): sys.modules[name] = None\n"
        "sys.argv = ['reason', 'compress', 'int8', 'm', 'o', '--set', 'smoth=1']\n"
        "from reason_engine.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "smoth" in done.stderr


def test_profile_is_carried_without_the_policy_and_the_manifest_says_how(model: Path, tmp_path: Path) -> None:
    said: list[Any] = []
    run("int8", prepare("int8", None, QUIET), str(model), tmp_path / "o", said.append)
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "report.json", "report.md"}
    assert json.loads((tmp_path / "o" / "reason.json").read_text()) == {"description": "tiny"}
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["method"] == "int8" and manifest["figures"]["matrices"] == 14 and manifest["base"]
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert any("vLLM, CPU" in row.get("note", "") for row in said)


def test_a_quantised_model_is_refused(model: Path, tmp_path: Path) -> None:
    run("int8", prepare("int8", None, QUIET), str(model), tmp_path / "o")
    with pytest.raises(SetupError, match=r"is quantised already \(compressed-tensors\)"):
        run("int8", prepare("int8", None, QUIET), str(tmp_path / "o"), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_what_stands_there_is_kept(model: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").write_text("x")
    with pytest.raises(SetupError, match="exists; name a folder that does not"):
        run("int8", prepare("int8", None, QUIET), str(model), tmp_path / "o")
    assert (tmp_path / "o" / "mine").read_text() == "x"


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_unfinished_folder_is_removed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr("reason_engine.engines.checkpoint.folder.ModelFolder.carry_over", broken)
    with pytest.raises((SetupError, KeyboardInterrupt)) as raised:
        run("int8", prepare("int8", None, QUIET), str(model), tmp_path / "o")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(raised.value, KeyboardInterrupt) or "No space left" in str(raised.value)


def test_an_unknown_architecture_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(SetupError, match="a qwen3 model is not known here"):
        run("int8", prepare("int8", None, QUIET), str(tmp_path / "m"), tmp_path / "o")
    with pytest.raises(ModelLoadError, match="no such model folder"):
        run("int8", prepare("int8", None, QUIET), str(tmp_path / "none"), tmp_path / "o")
    assert not (tmp_path / "o").exists()
