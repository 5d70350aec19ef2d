"""What vLLM is started with, by release, processor and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.engines.vllm.arguments import cache_bytes, engine_arguments
from reason_engine.engines.vllm.configuration import VllmConfig, runs_inprocess
from reason_engine.engines.vllm.release import Release

CPU, GPU = Release("0.32.0", cpu=True), Release("0.28.1", cpu=False)
SHAPE = {
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


def test_every_field_reaches_vllm_and_extra_has_the_last_word(folder: Path) -> None:
    config = VllmConfig(
        model="x", tensor_parallel_size=2, distributed_executor_backend="ray", enable_lora=True,
        speculative_config={"method": "ngram"}, extra={"swap_space": 3, "load_format": "dummy"},
    )  # fmt: skip
    made = engine_arguments(config, folder, release=GPU)
    assert (made["model"], made["tensor_parallel_size"], made["distributed_executor_backend"]) == (
        str(folder),
        2,
        "ray",
    )
    assert (made["speculative_config"], made["swap_space"], made["load_format"]) == (
        {"method": "ngram_gpu"},
        3,
        "dummy",
    )
    assert (made["max_loras"], made["max_cpu_loras"], made["max_lora_rank"]) == (4, 17, 64)
    assert not {"enforce_eager", "kv_cache_memory_bytes", "mode", "name", "extra", "max_adapters"} & set(made)
    assert "per_request_spec_decode_metrics" not in made
    newer = engine_arguments(config, folder, release=Release("0.30.0", cpu=False))
    assert newer["per_request_spec_decode_metrics"] == "summary"


def test_pickles_are_never_loaded_by_default(folder: Path) -> None:
    assert engine_arguments(VllmConfig(model="x"), folder, release=GPU)["load_format"] == "safetensors"


def test_on_the_cpu_the_cache_has_a_size(folder: Path) -> None:
    token = 2 * 28 * 8 * 128 * 2
    made = engine_arguments(VllmConfig(model="x", max_model_len=8192, dtype="bfloat16"), folder, release=CPU)
    assert made["enforce_eager"]
    assert made["kv_cache_memory_bytes"] == 2 * token * (8192 + 128)
    assert cache_bytes(folder, None) == 2 * token * (40960 + 128)
    assert cache_bytes(folder, 128, "float32") == 256 * 2**20
    own = VllmConfig(model="x", gpu_memory_utilization=0.5)
    assert "kv_cache_memory_bytes" not in engine_arguments(own, folder, release=CPU)
    (folder / "config.json").write_text('{"text_config": {}}')
    assert cache_bytes(folder, None) == 2**30


def weigh(folder: Path, size: int) -> Path:
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size)  # sparse
    return folder


@pytest.mark.parametrize(
    ("size", "half", "dtype"),
    [(2**30 - 1, False, "float32"), (2**30, False, "auto"), (2**26 - 1, True, "float32"), (2**26, True, "auto")],
)
def test_what_a_model_computes_in_on_the_cpu(folder: Path, size: int, half: bool, dtype: str) -> None:
    """float32 for a small model on a processor without bf16, for a tiny one on any."""
    weigh(folder, size)
    assert engine_arguments(VllmConfig(model="x"), folder, release=CPU, half=half)["dtype"] == dtype
    assert engine_arguments(VllmConfig(model="x"), folder, release=GPU, half=half)["dtype"] == "auto"
    asked = VllmConfig(model="x", dtype="float16")
    assert engine_arguments(asked, folder, release=CPU, half=half)["dtype"] == "float16"


def test_the_processor_is_asked_for_bf16(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weigh(folder, 2**27)
    for amx, avx, dtype in ((True, False, "auto"), (False, True, "auto"), (False, False, "float32")):
        monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda found=amx: found)
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda found=avx: found)
        assert engine_arguments(VllmConfig(model="x"), folder, release=CPU)["dtype"] == dtype


def test_on_the_cpu_blocks_are_small_so_that_short_prompts_are_shared(folder: Path) -> None:
    assert engine_arguments(VllmConfig(model="x"), folder, release=CPU)["block_size"] == 32
    assert engine_arguments(VllmConfig(model="x", block_size=64), folder, release=CPU)["block_size"] == 64
    assert "block_size" not in engine_arguments(VllmConfig(model="x"), folder, release=GPU)


@pytest.mark.parametrize(("method", "own", "replaced"), [("gptq", "auto", "float32"), ("fp8", "float32", "float32")])
def test_4_bit_models_in_half_precision_but_where_their_product_is_ours(
    folder: Path, method: str, own: str, replaced: str
) -> None:
    said = {**json.loads((folder / "config.json").read_text()), "quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(said))
    made = [
        engine_arguments(VllmConfig(model="x"), folder, release=CPU, replaced=by_us)["dtype"] for by_us in (False, True)
    ]
    assert made == [own, replaced]


@pytest.mark.parametrize(
    ("config", "release", "expected"),
    [
        ({}, CPU, True),
        ({}, GPU, False),
        ({"tensor_parallel_size": 2}, CPU, False),
        ({"mode": "async"}, CPU, False),
        ({"mode": "inprocess"}, GPU, True),
    ],
)
def test_where_the_model_runs(config: dict[str, Any], release: Release, expected: bool) -> None:
    assert runs_inprocess(VllmConfig(model="x", **config), release) is expected


@pytest.mark.parametrize(
    "bad",
    [{"mode": "thread"}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}, {"dtype": "int4"}, {"tp": 2},
     {"max_model_len": 1}],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VllmConfig.model_validate({"model": "x", **bad})
