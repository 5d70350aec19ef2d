"""A GGUF file in the place of a checkpoint folder: the engine, its names, adapters, what lies beside, the hub."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from reason_engine.cli.doctor import examine_model
from reason_engine.engines import open as opening
from reason_engine.engines.checkpoint.checkpoint import find_checkpoint, name_of
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import engine_name, model_path, open_engine, profile_of, served_name
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.profile import Profile, read_profile, write_profile
from reason_engine.settings import Settings, load_settings
from tests.engines.contract import read, request
from tests.engines.test_embedded_adapters import ALL, write_adapter
from tests.gguf_files import write_gguf
from tests.models import write_model


def settings(**values: Any) -> Settings:
    return load_settings(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny", "llama")


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    return write_gguf(folder, tmp_path / "tiny-f32.gguf")


async def answers(model: Path, adapter: Path) -> tuple[list[str], Embedded]:
    engine = Embedded(model, inline=True)
    await engine.start()
    await engine.load_adapter("a", str(adapter))
    asked = (request("say it, please"), request("adapt this, please", adapter="a"))
    texts = [(await read(engine, one))[0].text for one in asked]
    await engine.close()
    return texts, engine


async def test_answers_and_adapters_are_those_of_the_folder(folder: Path, file: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", 1, ALL)
    (ours, engine), (theirs, other) = await answers(file, adapter), await answers(folder, adapter)
    assert ours == theirs and ours[0] != ours[1]
    assert (engine.info.name, engine.info.path) == ("tiny-f32", str(file))
    assert engine.info.context == other.info.context and engine.info.fingerprint != other.info.fingerprint


def test_a_file_is_opened_as_a_folder_is(file: Path) -> None:
    assert model_path(settings(model=str(file))) == file
    assert served_name(settings(model=str(file))) == "tiny-f32"
    assert served_name(settings(model=str(file), served_name="mine")) == "mine"
    engine = open_engine(settings(model=str(file), engine="embedded"))
    assert isinstance(engine, Embedded) and engine.info.name == "tiny-f32"


@pytest.mark.parametrize("gpu", [False, True])
def test_vllm_is_not_chosen_for_a_file_and_refuses_it(monkeypatch: pytest.MonkeyPatch, file: Path, gpu: bool) -> None:
    monkeypatch.setattr(opening, "has_gpu", lambda: gpu)
    monkeypatch.setattr(opening, "find_spec", lambda name: object())
    assert engine_name(settings(model=str(file))) == "embedded"
    assert engine_name(settings(model="owner/model:file.gguf")) == "embedded"
    with pytest.raises(SetupError, match=r"tiny-f32\.gguf: vLLM does not read GGUF files here; serve it with --engine"):
        open_engine(settings(model=str(file), engine="vllm"))


def test_a_profile_lies_beside_the_file_or_in_a_folder_of_its_name(file: Path) -> None:
    assert profile_of(settings(model=str(file))) == Profile()
    write_profile(file, Profile(description="beside"))
    assert json.loads((file.parent / "reason.json").read_text()) == {"description": "beside"}
    assert profile_of(settings(model=str(file))).description == "beside"
    (file.parent / "tiny-f32").mkdir()
    assert read_profile(file) == Profile()
    write_profile(file, Profile(description="closer"))
    assert (file.parent / "tiny-f32" / "reason.json").is_file()
    assert profile_of(settings(model=str(file))).description == "closer"


def test_the_doctor_says_how_a_file_is_spoken_to(file: Path, folder: Path) -> None:
    found = {check.name: check for check in examine_model(str(file), None, None)}
    there = {check.name: check for check in examine_model(str(folder), None, None)}
    assert found["context"] == there["context"] and found["chat template"] == there["chat template"]
    assert found["weights"].detail == "F32"


def test_a_file_in_a_hub_repository_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    asked: list[tuple[str, str]] = []
    file = write_gguf(folder, tmp_path / "m-Q8_0.gguf", "Q8_0")

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("owner/model-GGUF:sub/m-Q8_0.gguf").check().path == file
    assert asked == [("owner/model-GGUF", "sub/m-Q8_0.gguf")]
    assert served_name(settings(model="owner/model-GGUF:sub/m-Q8_0.gguf")) == "m-Q8_0"
    asked.clear()
    find_checkpoint("owner/model:m-00001-of-00002.gguf")
    assert asked == [("owner/model", f"m-0000{part}-of-00002.gguf") for part in (1, 2)]


def test_a_file_that_the_hub_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*_: str) -> str:
        raise OSError("404 not found\nand more")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"owner/model:m\.gguf: no such file, and not to be had .* 404 not found$"):
        open_engine(settings(model="owner/model:m.gguf"))


def test_a_repository_of_files_says_how_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(
        ModelLoadError, match=r"has no config\.json; a GGUF file in it is named owner/m-GGUF:FILE\.gguf"
    ):
        open_engine(settings(model="owner/m-GGUF"))


@pytest.mark.parametrize("name", ["none.gguf", "./none.gguf", "a/b/c:none.gguf", "/none/none.gguf"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"no such model|not found"):
        open_engine(settings(model=name))


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x80\x04pickled")
    with pytest.raises(ModelLoadError, match=r"model\.bin: not a GGUF file"):
        open_engine(settings(model=str(tmp_path / "model.bin")))


def test_a_model_is_called_as_its_file_is(tmp_path: Path) -> None:
    for name, called in (("a.b-Q4_K.gguf", "a.b-Q4_K"), ("m-00001-of-00003.gguf", "m")):
        (tmp_path / name).touch()
        assert name_of(tmp_path / name) == called
    assert name_of(tmp_path) == tmp_path.name


def test_int8_is_made_of_a_file(file: Path, folder: Path) -> None:
    from reason_engine.engines.embedded.model.loading import load_decoder

    ours, theirs = (load_decoder(model, weights="int8", threads=1) for model in (file, folder))
    assert ours.precision == theirs.precision and "int8" in ours.precision


def test_the_worker_is_told_of_a_file_that_went_away(file: Path) -> None:
    engine = Embedded(file, inline=True)
    file.unlink()
    with pytest.raises(ModelLoadError, match=r"tiny-f32\.gguf"):
        asyncio.run(engine.start())
