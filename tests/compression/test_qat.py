"""`reason compress qat`: the stored weights are those that training saw, in files that the engines read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from reason_engine.compression.quantize.qat import packed
from reason_engine.compression.run import prepare, run
from reason_engine.engines.embedded.model.codes import read_codes
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.training.supervised.sft import Qat, codes4, fake_quantised, plain4
from tests.models import write_model

MIX = "mixture=[{family: value, share: 1}]"
SETTINGS = ("report=false", MIX, "length=256", "threads=1", "train.tokens=1500", "train.batch=8")


def stored(folder: Path, at: str, shape: tuple[int, int]) -> torch.Tensor:
    """The matrix of that name as the embedded engine reads it, in fp32."""
    found = read_codes(load_file(folder / "model.safetensors"), at, shape, read_shape(folder).scheme)
    assert found is not None and found.order_I is None
    codes, scale_OG = found.code_OI.float(), found.scale_OG
    if found.offset_OG is None:
        return codes * scale_OG
    code_OGI = codes.reshape(*scale_OG.shape, -1)
    return (code_OGI * scale_OG[..., None] + found.offset_OG[..., None]).reshape(shape)


def test_packed_codes_are_read_back() -> None:
    weight_OI = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    code_OI, scale_OG = codes4(weight_OI, 32)
    found = read_codes(packed("x", code_OI, scale_OG), "x", (16, 64), "gptq")
    assert found is not None and torch.equal(found.code_OI, code_OI)
    assert torch.equal(found.scale_OG, scale_OG.float())
    assert torch.equal(found.offset_OG, -8 * scale_OG.float())


@pytest.mark.parametrize("qat", [Qat(bits=4, group=32), Qat(bits=8)])
def test_what_training_saw_is_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qat: Qat) -> None:
    model = write_model(tmp_path / "m", dtype="bfloat16", scale=1.0, tie_word_embeddings=True)
    trained: dict[str, torch.Tensor] = {}

    def store(folder: Path, *rest: Any) -> int:
        trained.update(load_file(folder / "model.safetensors"))
        return kept(folder, *rest)

    from reason_engine.compression.quantize import qat as module

    kept = module.store
    monkeypatch.setattr(module, "store", store)
    section = [f"qat.{name}={value}" for name, value in qat.grid().items()]
    run("qat", prepare("qat", None, (*SETTINGS, *section)), str(model), tmp_path / "o")
    for at, shape in (("self_attn.k_proj", (32, 64)), ("mlp.down_proj", (64, 96))):
        name = f"model.layers.1.{at}"
        assert torch.equal(stored(tmp_path / "o", name, shape), fake_quantised(trained[f"{name}.weight"], qat)), at
    assert not torch.equal(
        trained["model.layers.1.mlp.down_proj.weight"],
        load_file(model / "model.safetensors")["model.layers.1.mlp.down_proj.weight"].float(),
    )
    said = json.loads((tmp_path / "o" / "config.json").read_text())
    assert said["dtype"] == "bfloat16" and said["quantization_config"]["quant_method"]
    others = load_file(tmp_path / "o" / "model.safetensors")
    assert others["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "o"]


def test_a_model_trained_before_is_stored_as_it_is(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    (model / "qat.json").write_text('{"bits": 4, "group": 32}')
    run("qat", prepare("qat", None, ("report=false", "qat.group=32")), str(model), tmp_path / "o")
    weight_OI = load_file(model / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    seen_OI = stored(tmp_path / "o", "model.layers.0.mlp.up_proj", (96, 64))
    assert torch.equal(seen_OI, plain4(*codes4(weight_OI, 32)))
    assert not (tmp_path / "o" / "qat.json").exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qat") / "m")


@pytest.mark.parametrize(
    ("grid", "settings", "said"),
    [
        (None, (), "was not trained for a grid (it has no qat.json)"),
        ('{"bits": 8}', (), "trained for another grid: --set qat.bits=8"),
        ('{"bits": 3}', (), "qat.json: "),
        (None, ("train.tokens=100",), "train needs rows: name data or a mixture"),
        (None, ("train.tokens=100", MIX), "wide, which is no multiple of 128"),
        (None, ("qat.bits=5",), "qat.bits: "),
    ],
)
def test_wrong_input_is_one_line(
    tiny: Path, tmp_path: Path, reason: Any, grid: str | None, settings: tuple[str, ...], said: str
) -> None:
    model = shutil.copytree(tiny, tmp_path / "m")
    if grid:
        (model / "qat.json").write_text(grid)
    words = [word for setting in settings for word in ("--set", setting)]
    ran = reason("compress", "qat", str(model), str(tmp_path / "o"), *words)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "o").exists()
