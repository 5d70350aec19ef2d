"""GGUF files that cannot be served: refused before a tensor is read, with the name of the file, and entry or tensor."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reason_engine.engines.checkpoint.checkpoint import find_checkpoint
from reason_engine.engines.checkpoint.gguf.file import GgufFile
from reason_engine.engines.checkpoint.gguf.tensors import GgufTensors
from reason_engine.errors import ModelLoadError
from tests.gguf_files import metadata, stored, write_file, write_gguf
from tests.models import write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny", "llama")


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(folder, tmp_path_factory.mktemp("g") / "m.gguf", "Q8_0").read_bytes()


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(GgufTensors, "__getitem__", read)


def refused(path: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        find_checkpoint(str(path)).check()
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"", "not a GGUF file: it begins with b''"),
        (lambda data: b"PK\x03\x04" + data[4:], "not a GGUF file: it begins with b'PK"),
        (lambda data: data[:20], "truncated: 20 bytes are not even a head"),
        (lambda data: data[:4] + struct.pack("<I", 1) + data[8:], "version 1 of GGUF is not read, only 2 and 3"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "version 9"),
        (lambda data: data[:4] + struct.pack(">I", 3) + data[8:], "big-endian"),
        (lambda data: data[:3000], "truncated: it ends inside its head"),
        (lambda data: data[:-1], "truncated: tensor"),
        (lambda data: data[: len(data) // 2], "truncated: tensor"),
        (lambda data: data[:8] + struct.pack("<Q", 2**63) + data[16:], "truncated: it ends inside its head"),
        (lambda data: data[:16] + struct.pack("<Q", 2**63) + data[24:], "truncated: it ends inside"),
        (
            lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.0.ffn_up.weight"),
            "blk.0.ffn_up.weight is listed twice",
        ),
        (lambda data: data.replace(b"llama.block_count", b"llama.block_coun\xff"), "a key is not UTF-8"),
        (lambda data: data.replace(b"llama.block_count", b"llama.block_weird"), "llama.block_count is missing"),
    ],
)
def test_a_spoilt_file_is_named(tmp_path: Path, whole: bytes, spoil: Callable[[bytes], bytes], said: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(spoil(whole))
    assert said in refused(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 20_000), value=st.binary(min_size=1, max_size=9))
def test_spoilt_bytes_never_end_in_another_error(tmp_path: Path, whole: bytes, at: int, value: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    try:
        find_checkpoint(str(path)).check()
    except ModelLoadError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"general__architecture": "mamba"}, "general.architecture 'mamba' is not among those"),
        ({"general__architecture": "gemma3"}, "runs from a GGUF file: llama, qwen2, qwen3"),
        ({"general__type": "adapter"}, "general.type is 'adapter': this is not a whole model"),
        ({"llama__context_length": None}, "llama.context_length is missing"),
        ({"llama__context_length": "long"}, "llama.context_length is 'long'"),
        ({"llama__block_count": 0}, "llama.block_count is 0"),
        ({"llama__block_count": 3}, "has no tensor blk.2.attn_q.weight"),
        ({"llama__block_count": 1}, "tensor blk.1."),
        ({"llama__attention__head_count": [4, 2]}, "llama.attention.head_count is [4, 2]"),
        ({"llama__attention__layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
        ({"llama__attention__value_length": 8}, "llama.attention.value_length is 8"),
        ({"llama__rope__dimension_count": 8}, "llama.rope.dimension_count is 8"),
        ({"llama__rope__scaling__type": "longrope"}, "llama.rope.scaling.type is 'longrope'"),
        ({"llama__rope__scaling__attn_factor": 2.0}, "llama.rope.scaling.attn_factor is 2.0"),
        ({"llama__rope__freq_base": float("nan")}, "llama.rope.freq_base is nan"),
        ({"llama__expert_count": 8}, "llama.expert_count is 8"),
        ({"llama__logit_scale": 0.5}, "llama.logit_scale is 0.5"),
        ({"llama__attention__causal": False}, "llama.attention.causal is False"),
        ({"llama__feed_forward_length": 95}, "is (96, 64) where its metadata asks for (95, 64)"),
        ({"llama__embedding_length": 32}, "where its metadata asks for"),
        ({"general__alignment": 24}, "general.alignment must be a power of two"),
        ({"without": ["blk.1.attn_v.weight"]}, "has no tensor blk.1.attn_v.weight"),
        ({"without": ["token_embd.weight"]}, "has no tensor token_embd.weight"),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, folder: Path, changed: dict[str, Any], said: str) -> None:
    assert said in refused(write_gguf(folder, tmp_path / "bad.gguf", **changed))


@pytest.mark.parametrize("kind", ["Q8_K", "Q1_0", "I8"])
def test_a_type_that_is_not_dequantised_is_named(tmp_path: Path, folder: Path, kind: str) -> None:
    import gguf

    block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    inner = np.zeros((64, 256 // block * width), np.uint8)
    wide = write_model(tmp_path / "wide", "llama", intermediate_size=256, num_hidden_layers=1)
    tensors = stored(wide) | {"blk.0.ffn_down.weight": inner}
    path = write_file(tmp_path / "bad.gguf", metadata(wide), tensors, {"blk.0.ffn_down.weight": kind})
    assert f"tensor blk.0.ffn_down.weight is stored as {kind}, which cannot be read here" in refused(path)


def test_a_tensor_that_would_be_left_out_is_named(tmp_path: Path, folder: Path) -> None:
    tensors = stored(folder) | {"blk.0.attn_output.bias": np.zeros(64, np.float32)}
    path = write_file(tmp_path / "bad.gguf", metadata(folder), tensors)
    assert "tensor blk.0.attn_output.bias belongs to no part" in refused(path)


@pytest.mark.parametrize("values", [[0.0] * 8, [float("nan")] * 8, [1.0] * 7])
def test_odd_divisors_of_frequencies_are_named(tmp_path: Path, folder: Path, values: list[float]) -> None:
    tensors = stored(folder) | {"rope_freqs.weight": np.array(values, np.float32)}
    assert "rope_freqs.weight" in refused(write_file(tmp_path / "bad.gguf", metadata(folder), tensors))


def test_parts_of_a_split_model_are_held_against_the_first(tmp_path: Path, folder: Path) -> None:
    from tests.engines.test_gguf_weights import write_split

    first = write_split(folder, tmp_path, 3)
    second, third = (tmp_path / f"split-0000{part}-of-00003.gguf" for part in (2, 3))
    assert "part 2 of 3; name the first" in refused(second)
    kept = third.read_bytes()
    third.write_bytes(second.read_bytes())
    assert f"{third}: not part 3 of 3" in refused(first)
    third.write_bytes(kept[:-100])
    assert f"{third}: truncated" in refused(first)
    third.unlink()
    assert f"{third}: not found, though split-00001-of-00003.gguf is one of 3 parts" in refused(first)
    odd = first.rename(tmp_path / "odd.gguf")
    assert "its name should end in -00001-of-00003.gguf" in refused(odd)


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"m\.gguf: No such file"):
        GgufFile(tmp_path / "m.gguf").check()
