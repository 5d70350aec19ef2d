"""`reason strategies`, `models`, `doctor`: what is here, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reason_engine.strategies import strategies
from tests.gguf_files import write_file
from tests.models import write_tokenizer


def test_strategies_lists_every_one(reason) -> None:
    ran = reason("strategies")
    assert all(name in ran.out for name in strategies)
    found = [json.loads(line) for line in reason("strategies", "--json").out.splitlines()]
    assert [each["name"] for each in found] == list(strategies)
    assert all(each["summary"] and each["schema"]["properties"] for each in found)


@pytest.mark.parametrize("name", list(strategies))
def test_strategies_shows_the_options_of_one(reason, name: str) -> None:
    out = reason("strategies", name).out
    assert all(field in out for field in strategies.get(name).model_fields)


def test_models_lists_what_the_cache_holds(reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "models--owner--tiny" / "snapshots" / "abc"
    whole.mkdir(parents=True)
    (whole / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 64}')
    (whole / "model.safetensors").write_bytes(b"x" * 2_000_000)
    (tmp_path / "models--owner--half" / "snapshots" / "abc").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = {each["name"]: each for each in map(json.loads, reason("models", "--json").out.splitlines())}
    assert found["owner/tiny"]["megabytes"] == 2.0
    assert found["owner/tiny"]["context"] == 64
    assert "owner/half" not in found
    assert "owner/tiny" in reason("models").out


def test_models_lists_files_by_the_name_they_are_served_under(
    reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models--owner--tiny-GGUF" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    entries = {"general.architecture": "llama", "llama.context_length": 64}
    write_file(folder / "tiny-Q8_0.gguf", entries, {"x": np.zeros((4, 4), np.float32)})
    (folder / "broken.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = {each["name"]: each for each in map(json.loads, reason("models", "--json").out.splitlines())}
    whole = found["owner/tiny-GGUF:tiny-Q8_0.gguf"]
    assert (whole["kind"], whole["context"]) == ("llama", 64)
    assert found["owner/tiny-GGUF:broken.gguf"]["kind"] == "?"


def test_models_lists_the_bundled_model(reason) -> None:
    assert "reason-nano" in reason("models").out


def test_models_of_a_server(reason, server) -> None:
    ran = reason("models", "--url", server.url, "--json")
    assert ran.code == 0, ran.err
    found = [json.loads(line)["name"] for line in ran.out.splitlines()]
    assert any(name.endswith(":tree-of-thoughts") for name in found)
    assert reason("models", "--url", "http://127.0.0.1:1").code == 1


def test_doctor_finds_this_machine_good(reason) -> None:
    ran = reason("doctor", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and found["ok"]
    names = [check["name"] for check in found["checks"]]
    assert names[:4] == ["python", "cores", "memory", "torch"]
    assert "reason-nano" in names


def test_doctor_exits_1_where_something_needed_is_missing(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reason_engine.engines.open.bundled_model", lambda: None)
    ran = reason("doctor")
    assert ran.code == 1
    assert "FAIL reason-nano" in ran.out


def test_doctor_tells_how_a_model_is_spoken_to(reason, tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
        "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}<tool_call>{{ tools }}"
    )
    write_tokenizer(tmp_path, template)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 4096}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    ran = reason("doctor", str(tmp_path), "--json")
    found = {check["name"]: check for check in json.loads(ran.out)["checks"]}
    assert "switched by enable_thinking" in found["thoughts"]["detail"]
    assert found["tool calls"]["detail"].startswith("hermes (<tool_call> in the template); the template renders tools")
    assert not found["system turn"]["ok"] and "first user turn" in found["system turn"]["detail"]
    assert found["chat template"]["ok"] and "<|im_end|>" in found["end of text"]["detail"]
    assert found["context"]["detail"] == "4096 tokens"
    named = reason("doctor", str(tmp_path), "--reasoning-parser", "mistral", "--tool-parser", "pythonic").out
    assert "[THINK]" in named and "pythonic (named)" in named


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reasoning-parser", "qwen4"), "--reasoning-parser qwen4: no such parser; one of: "),
        (("--tool-parser", "hermes2"), "--tool-parser hermes2: no such parser; one of: "),
    ],
)
@pytest.mark.parametrize("command", [("serve",), ("solve", "1 + 1?"), ("chat",), ("eval", "word-problems")])
def test_an_unknown_parser_is_refused_before_anything_is_loaded(reason, command, words, said) -> None:
    ran = reason(*command, "--engine", "scripted", *words)
    assert ran.code == 2
    assert said in ran.err


def test_doctor_of_a_model_that_is_none(reason, tmp_path: Path) -> None:
    ran = reason("doctor", str(tmp_path))
    assert ran.code == 2
    assert "\n" not in ran.err.strip()


def test_a_server_reads_its_own_model(reason) -> None:
    ran = reason("solve", "1 + 1?", "--url", "http://127.0.0.1:1", "--tool-parser", "hermes")
    assert ran.code == 2
    assert "exclude each other" in ran.err
