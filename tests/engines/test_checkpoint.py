"""A model's folder: what is read of it without torch, and what stands where writing it was broken off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import ModelLoadError, SetupError
from tests.models import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(write_model(tmp_path_factory.mktemp("m") / "tiny"))


def test_what_is_read_without_its_tensors(folder: ModelFolder) -> None:
    assert folder.check() == folder and folder.is_checkpoint
    assert folder.architecture == "Qwen3ForCausalLM" and folder.served_by == ("embedded", "vllm")
    assert folder.quantization is None and folder.scheme is None
    tensors = dict(folder.tensors())
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == folder.shapes
    assert folder.parameters == sum(tensor.numel() for tensor in tensors.values())


def test_the_fingerprint_is_of_the_weights(folder: ModelFolder, tmp_path: Path) -> None:
    other = ModelFolder(write_model(tmp_path / "other", scale=2.0))
    assert folder.fingerprint == ModelFolder(folder.path).fingerprint != other.fingerprint


def test_a_folder_is_made_whole_or_not_at_all(folder: ModelFolder, tmp_path: Path) -> None:
    out = ModelFolder(tmp_path / "out")
    with pytest.raises(KeyError), out.create() as made:
        made.write_json("config.json", {})
        raise KeyError("broken off")
    assert list(tmp_path.iterdir()) == []
    with out.create() as made:
        made.carry_over(folder)
    assert (out.path / "tokenizer.json").is_file() and not out.is_checkpoint
    with pytest.raises(SetupError, match="exists; name a folder that does not"), out.create():
        pass
    with pytest.raises(ModelLoadError, match=r"config\.json: not found"):
        out.check()


def test_an_update_leaves_other_files(tmp_path: Path) -> None:
    out = ModelFolder(tmp_path)
    (tmp_path / "mine").write_text("x")
    out.write_json("config.json", {"a": 1})
    with pytest.raises(SetupError, match="what stood there stays: full"), out.update() as fresh:
        (fresh / "config.json").write_text("{")
        raise OSError("full")
    assert out.config == {"a": 1}
    with out.update() as fresh:
        (fresh / "config.json").write_text('{"a": 2}')
    assert out.config == {"a": 2} and (tmp_path / "mine").read_text() == "x"


def test_a_profile_is_carried_over_without_its_policy(tmp_path: Path) -> None:
    before, after = (ModelFolder(tmp_path / name) for name in ("before", "after"))
    for one in (before, after):
        one.path.mkdir()
    before.write_json("reason.json", {"step_end": ";", "auto": {"weights": "w"}})
    after.carry_profile(before)
    assert json.loads((after.path / "reason.json").read_text()) == {"step_end": ";"}
