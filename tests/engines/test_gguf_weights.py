"""GGUF files as models: the decoder computes what it computes of the same weights in a folder, and as transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf.quants import dequantize, quantize

from reason_engine.engines.checkpoint.checkpoint import checkpoint_at
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.checkpoint.gguf import tensors as reading
from reason_engine.engines.checkpoint.gguf.file import GgufFile
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.weights import load_weights
from reason_engine.engines.embedded.prefill import advance, new_segment
from tests.gguf_files import metadata, stored, write_file, write_gguf
from tests.models import LLAMA3, YARN, write_model

CPU = torch.device("cpu")
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("qwen3", {"tie_word_embeddings": True, "rope_parameters": YARN}),
]


def logits(model: Path) -> torch.Tensor:
    shape = read_shape(model)
    decoder = Decoder(shape, load_weights(model, shape, torch.float32, CPU), torch.float32, CPU)
    ids = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        ((_, hidden),) = advance(decoder, [new_segment(decoder, ids, keep=len(ids))], 1000, None)
        return decoder.logits(hidden)


@pytest.mark.parametrize(("kind", "config"), MODELS, ids=lambda value: str(value)[:40])
def test_logits_are_those_of_the_folder(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    folder = write_model(tmp_path / "m", kind, **config)
    file = write_gguf(folder, tmp_path / "m.gguf")
    assert GgufFile(file).check().path == file
    assert torch.equal(logits(file), logits(folder))
    assert read_shape(file).context == read_shape(folder).context


def test_the_divisors_of_llama3_are_honoured(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama", rope_parameters=LLAMA3)
    tensors = stored(folder)
    plain = [1e4 ** (-2 * place / 16) for place in range(8)]
    divisors = [a / b for a, b in zip(plain, read_shape(folder).frequencies, strict=True)]
    assert max(divisors) > 2
    tensors["rope_freqs.weight"] = np.array(divisors, np.float32)
    file = write_file(tmp_path / "m.gguf", metadata(folder), tensors)
    assert (logits(file) - logits(folder)).abs().max() < 1e-3
    without = write_gguf(folder, tmp_path / "without.gguf")
    assert (logits(without) - logits(folder)).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_quantised_weights_are_what_their_codes_stand_for(tmp_path: Path, kind: str, model: str) -> None:
    folder = write_model(tmp_path / "m", model)
    file = write_gguf(folder, tmp_path / "m.gguf", kind)
    number = gguf.GGMLQuantizationType[kind]
    rounded = {
        name: dequantize(quantize(tensor, number), number).reshape(tensor.shape) if tensor.ndim > 1 else tensor
        for name, tensor in stored(folder).items()
    }
    again = logits(write_file(tmp_path / "again.gguf", metadata(folder), rounded))
    assert (logits(file) - again).abs().mean() / again.std() < 2e-3, "a code times its scale is kept to 11 bits"
    exact, found = (torch.log_softmax(logits(one), -1) for one in (folder, file))
    apart = (exact.exp() * (exact - found)).sum(-1).mean()
    assert 0 < apart < {"F16": 1e-4, "BF16": 1e-2, "Q8_0": 2e-2}.get(kind, 4)


def test_a_file_is_what_transformers_reads_in_it(tmp_path: Path) -> None:
    """Their reader of llama, which undoes the order of rows by itself."""
    folder = write_model(tmp_path / "m", "llama")
    file = write_gguf(folder, tmp_path / "m.gguf", "F16", general__name="tiny", llama__vocab_size=259)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    ids = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs.eval()(ids[None]).logits[0]
    assert (logits(file) - expected).abs().max() / expected.std() < 1e-3


KINDS = [kind.name for kind in gguf.GGMLQuantizationType if kind.name not in ("I8", "I16", "I32", "I64", "F64")]
UNREADABLE = ("Q8_1", "Q8_K", "Q1_0")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNREADABLE])
def test_a_matrix_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of every type: 5 rows of 768 numbers, a part of which is no whole number of rows."""
    monkeypatch.setattr(reading, "CHUNK", 512)
    monkeypatch.setattr(reading, "RUN", 256)
    number = gguf.GGMLQuantizationType[kind]
    block, width = gguf.GGML_QUANT_SIZES[number]
    raw = np.random.default_rng(0).integers(0, 60, (5, 768 // block * width), np.uint8)
    folder = write_model(tmp_path / "m", "llama", hidden_size=768, num_hidden_layers=1)
    path = write_file(
        tmp_path / "m.gguf", metadata(folder), stored(folder) | {"blk.0.ffn_gate.weight": raw},
        {"blk.0.ffn_gate.weight": kind},
    )  # fmt: skip
    part = GgufFile(path)._header.tensors["blk.0.ffn_gate.weight"]
    assert part.shape == (5, 768)
    expected = dequantize(raw, number).reshape(5, 768)
    found = reading.GgufTensors({"x": reading.Part(part)})["x"]
    kept = {"F32": torch.float32, "BF16": torch.bfloat16, "MXFP4": torch.bfloat16, "NVFP4": torch.bfloat16}
    assert found.dtype == kept.get(kind, torch.float16)
    assert torch.equal(found, torch.from_numpy(expected).to(found.dtype))


def test_parts_are_read_in_threads_where_nothing_is_to_be_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the engine reads them; the mode is a thread's own."""
    monkeypatch.setattr(reading, "CHUNK", 512)
    folder = write_model(tmp_path / "m", "llama", hidden_size=768, num_hidden_layers=1)
    path = write_file(tmp_path / "m.gguf", metadata(folder), stored(folder))
    plain = reading.GgufTensors({"x": reading.Part(GgufFile(path)._header.tensors["blk.0.ffn_gate.weight"])})
    plain._workers = 2
    outside = plain["x"]
    with torch.inference_mode():
        assert torch.equal(plain["x"], outside)


def test_both_kinds_of_checkpoint_name_their_tensors_alike(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama")
    file = checkpoint_at(write_gguf(folder, tmp_path / "m.gguf", "Q4_0"))
    assert isinstance(file, GgufFile)
    assert file.shapes == ModelFolder(folder).shapes
    tensors = dict(ModelFolder(folder).tensors())
    vectors = {name for name, shape in file.shapes.items() if len(shape) == 1}
    assert all(torch.equal(file.mapped()[name], tensors[name]) for name in vectors)
    assert file.architecture == "LlamaForCausalLM" and file.scheme is None
    assert file.fingerprint == GgufFile(file.path).fingerprint != ModelFolder(folder).fingerprint


def test_tensors_are_read_anew_and_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "m", "qwen2")
    found = GgufFile(write_gguf(folder, tmp_path / "m.gguf")).mapped()
    read: list[str] = []
    fill = reading.GgufTensors._fill

    def noted(self: reading.GgufTensors, info: Any, out: torch.Tensor) -> None:
        read.append(info.name)
        fill(self, info, out)

    monkeypatch.setattr(reading.GgufTensors, "_fill", noted)
    name = "model.layers.1.mlp.up_proj.weight"
    assert name in found and len(found) == len(list(found)) and read == []
    first = found[name]
    assert read == ["blk.1.ffn_up.weight"] and first.dtype == torch.float32
    first.zero_()
    assert found[name].abs().sum() > 0


def test_parts_of_a_split_model_are_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", "llama")
    whole = write_gguf(folder, tmp_path / "whole.gguf", "Q8_0")
    first = write_split(folder, tmp_path, 3)
    assert GgufFile(first).check().files == sorted(tmp_path.glob("split-*.gguf"))
    assert torch.equal(logits(first), logits(whole))


def write_split(folder: Path, out: Path, count: int) -> Path:
    """A model in several files, as llama.cpp's splitting writes them; the first."""
    tensors, entries = stored(folder), metadata(folder)
    names = sorted(tensors)
    paths = [out / f"split-{part + 1:05}-of-{count:05}.gguf" for part in range(count)]
    for part, path in enumerate(paths):
        split = {"split.no": part, "split.count": count, "split.tensors.count": len(names)}
        own = entries if part == 0 else {"general.architecture": "llama"}
        write_file(path, own | split, {name: tensors[name] for name in names[part::count]}, "Q8_0")
    return paths[0]
