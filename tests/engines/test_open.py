"""Which engine the settings mean, and that a wrong model or name fails before anything heavy is imported."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines import open as opening
from reason_engine.engines.open import engine_name, model_path, open_engine, profile_of, served_name
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.profile import Profile, write_profile
from reason_engine.settings import Settings, load_settings


def settings(**values: Any) -> Settings:
    return load_settings(values)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a checkpoint: one tensor of one byte."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    return folder


@pytest.mark.parametrize(
    ("gpu", "installed", "upstream", "expected"),
    [
        (False, False, None, "embedded"),
        (True, False, None, "embedded"),
        (False, True, None, "embedded"),
        (True, True, None, "vllm"),
        (True, True, "http://127.0.0.1:1/v1", "openai"),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, gpu: bool, installed: bool, upstream: str | None, expected: str) -> None:
    monkeypatch.setattr(opening, "has_gpu", lambda: gpu)
    monkeypatch.setattr(opening, "find_spec", lambda name: object() if installed else None)
    assert engine_name(settings(upstream_url=upstream)) == expected


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_none(monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not opening.has_gpu()


def test_engines_by_name() -> None:
    assert isinstance(open_engine(settings(engine="scripted")), Scripted)
    remote = open_engine(
        settings(engine="openai", upstream_url="http://127.0.0.1:1/v1", model="theirs", upstream_key="k")
    )
    assert isinstance(remote, OpenAIEngine)
    assert (remote.config.model, remote.config.base_url) == ("theirs", "http://127.0.0.1:1/v1")


def test_a_misspelt_engine_is_named() -> None:
    with pytest.raises(SetupError, match="did you mean 'scripted'"):
        open_engine(settings(engine="scriptd"))


def test_a_way_to_draft_that_the_engine_lacks_is_named() -> None:
    with pytest.raises(SetupError, match="--draft eagle:x: this engine drafts by one of: none"):
        open_engine(settings(engine="scripted", draft="eagle:x"))


@pytest.mark.parametrize("draft", ["sam", "ngram", "none"])
def test_a_way_to_draft_reaches_the_engine(checkpoint: Path, draft: str) -> None:
    from reason_engine.engines.embedded.front import Embedded
    from reason_engine.engines.vllm.engine import VllmEngine

    embedded = open_engine(settings(engine="embedded", draft=draft))
    assert isinstance(embedded, Embedded)
    assert embedded._config.draft == draft
    vllm = open_engine(settings(engine="vllm", model=str(checkpoint), draft=draft))
    assert isinstance(vllm, VllmEngine)
    assert vllm.caps.drafting == (draft,)


@pytest.mark.parametrize("draft", ["suffix", "model:x", "sma"])
def test_the_embedded_engine_drafts_by_sam_or_ngram(draft: str) -> None:
    with pytest.raises(SetupError, match=f"--draft {draft}: this engine drafts by one of: ngram, none, sam"):
        open_engine(settings(engine="embedded", draft=draft))


def test_a_remote_engine_needs_an_address() -> None:
    with pytest.raises(SetupError, match="--upstream-url"):
        open_engine(settings(engine="openai"))


def test_a_vllm_argument_of_the_wrong_type_is_named(checkpoint: Path) -> None:
    with pytest.raises(SetupError, match=r"vllm\.tensor_parallel_size"):
        open_engine(settings(engine="vllm", model=str(checkpoint), vllm={"tensor_parallel_size": "two"}))


def test_arguments_that_are_not_ours_go_to_vllm_as_they_are(checkpoint: Path) -> None:
    from reason_engine.engines.vllm.engine import VllmEngine

    asked = {"tensor_parallel_size": 2, "swap_space": 4}
    engine = open_engine(settings(engine="vllm", model=str(checkpoint), vllm=asked, context=64))
    assert isinstance(engine, VllmEngine)
    assert (engine.config.tensor_parallel_size, engine.config.max_model_len) == (2, 64)
    assert engine.config.extra == {"swap_space": 4}


def test_a_folder_is_its_own_name(checkpoint: Path) -> None:
    assert model_path(settings(model=str(checkpoint))) == checkpoint
    assert served_name(settings(model=str(checkpoint))) == "tiny"
    assert served_name(settings(model=str(checkpoint), served_name="mine")) == "mine"
    assert served_name(settings(model="owner/model")) == "owner/model"
    assert served_name(settings()) == "reason-nano"


def test_the_profile_beside_the_weights_is_read(checkpoint: Path) -> None:
    assert profile_of(settings(model=str(checkpoint))) == Profile()
    write_profile(checkpoint, Profile(description="ours"))
    assert profile_of(settings(model=str(checkpoint))).description == "ours"
    (checkpoint / "reason.json").write_text('{"nosuch": 1}')
    with pytest.raises(ModelLoadError, match=r"reason\.json: nosuch"):
        profile_of(settings(model=str(checkpoint)))


def test_a_remote_model_has_general_prompts() -> None:
    assert profile_of(settings(upstream_url="http://127.0.0.1:1/v1")) == Profile()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: not found"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 9), "corrupt"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "pickled"),
    ],
)
def test_a_spoilt_checkpoint_is_named(checkpoint: Path, spoil: Any, said: str) -> None:
    spoil(checkpoint)
    with pytest.raises(ModelLoadError, match=said):
        open_engine(settings(model=str(checkpoint)))


@pytest.mark.parametrize("name", ["/no/such", "./none", "no such", "a/b/c", "none", "..", "~/none"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"no such model folder|not found"):
        open_engine(settings(model=name))


def test_without_the_bundled_model_one_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "bundled_model", lambda: None)
    with pytest.raises(ModelLoadError, match="name one"):
        open_engine(settings())


def test_several_endpoints_are_one_engine() -> None:
    made = open_engine(settings(engine="openai", upstream_url=["http://a/v1", "http://b:8000/v1"]))
    assert isinstance(made, OpenAIEngine)
    assert made.config.urls == ("http://a/v1", "http://b:8000/v1")


def test_an_endpoint_that_hangs_is_left_while_a_request_still_has_time() -> None:
    usual = settings(engine="openai", upstream_url="http://a/v1")
    made = open_engine(usual)
    assert isinstance(made, OpenAIEngine)
    assert (made.config.connect_timeout, made.config.timeout) == (10, 120)
    assert made.config.timeout < usual.max_seconds
    asked = {"upstream_connect_seconds": 2, "upstream_idle_seconds": 7.5}
    made = open_engine(settings(engine="openai", upstream_url="http://a/v1", **asked))
    assert isinstance(made, OpenAIEngine)
    assert (made.config.connect_timeout, made.config.timeout) == (2, 7.5)


@pytest.mark.parametrize("key", ["upstream_connect_seconds", "upstream_idle_seconds"])
@pytest.mark.parametrize("value", [0, -3, float("inf"), "soon"])
def test_limits_of_endpoints_that_are_none_are_named(key: str, value: object) -> None:
    with pytest.raises(SetupError, match=key):
        load_settings({key: value})


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("host:8000/v1", "is not the address"),
        ("http://a/v1,ftp://b", "'ftp://b' is not"),
        ("http://a,http://a/", "twice"),
    ],
)
def test_a_wrong_address_is_named_before_anything_is_sent(urls: str, said: str) -> None:
    with pytest.raises(SetupError, match=f"upstream_url: .*{said}"):
        open_engine(settings(engine="openai", upstream_url=urls))
