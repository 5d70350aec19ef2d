"""Quantised checkpoints: read as their packers wrote them, multiplied as they are, small in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reason_engine.compression.quantize.int8 import quantization_config, round_to_nearest
from reason_engine.compression.run import prepare, run
from reason_engine.engines.embedded.model import int8 as int8_module
from reason_engine.engines.embedded.model.codes import Codes, read_codes
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.int8 import Int8
from reason_engine.engines.embedded.model.quantised import Int4, Nibbles, SideBySide, pack
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.weights import load_weights
from reason_engine.engines.embedded.prefill import advance, new_segment
from reason_engine.errors import ModelLoadError
from tests.models import write_model
from tests.quantised import numbers, quantise, tensors, write_int4

CPU = torch.device("cpu")


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = {"hidden_size": 64, "intermediate_size": 128}
    return write_model(tmp_path_factory.mktemp("m") / "tiny", tie_word_embeddings=True, **wide)


@pytest.fixture(scope="module")
def int8(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("q") / "int8"
    run("int8", prepare("int8", None, ["report=false"]), str(model), out)
    return out


def logits(folder: Path, ids: list[int]) -> torch.Tensor:
    shape = read_shape(folder)
    decoder = Decoder(shape, load_weights(folder, shape, torch.float32, CPU), torch.float32, CPU)
    whole = advance(decoder, [new_segment(decoder, ids, keep=len(ids))], 1000, None)
    return decoder.logits(whole[0][1])


@pytest.mark.parametrize(("rows", "large"), [(3, False), (3, True), (70, True)])
def test_int8_multiplies_codes_with_codes(monkeypatch: pytest.MonkeyPatch, rows: int, large: bool) -> None:
    """Each token by its own scale, one of them a thousand times larger; all three ways."""
    monkeypatch.setattr(int8_module, "SMALL", 0 if large else 1 << 30)
    monkeypatch.setattr(int8_module, "TILE", 1000)
    x, weight = random(rows, 96), random(80, 96, seed=1)
    x[1] *= 1000
    made = round_to_nearest("w", weight)
    code, scale = made["w"], made["w_scale"]
    step = x.abs().amax(1, keepdim=True) / 127
    exact = (torch.round(x / step).double() @ code.double().t()) * step.double() * scale.double().t()
    found = pack([Codes(code, scale, rounded=True)], CPU).product(x)
    error = (found - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < (4e-3 if large and rows <= int8_module.FEW else 1e-5)


@pytest.mark.parametrize(
    ("scheme", "ordered"), [("gptq", False), ("gptq_v2", False), ("awq", False), ("gptq", True), ("gptq_v2", True)]
)
def test_int4_files_are_read_as_they_were_packed(scheme: Any, ordered: bool) -> None:
    weight, x = random(48, 128), random(5, 128, seed=2)
    order = torch.randperm(128, generator=torch.Generator().manual_seed(3)) if ordered else None
    files = tensors("m", weight, scheme, 32, order)
    codes = read_codes(files, "m", (48, 128), scheme)
    assert codes is not None and (codes.order_I is not None) == ordered
    exact_OI = numbers(*quantise(weight if order is None else weight[:, order], 32))
    exact = x @ (exact_OI if order is None else exact_OI[:, torch.argsort(order)]).t()
    packed = pack([codes], CPU)
    assert isinstance(packed, Int4)
    assert (packed.product(x) - exact).norm() / exact.norm() < 6e-3
    assert codes.offset_OG is not None
    plain = Nibbles(codes.code_OI, codes.scale_OG, codes.offset_OG, codes.order_I)
    torch.testing.assert_close(plain.product(x), exact, atol=1e-3, rtol=1e-4)


def test_parts_in_different_orders_stand_side_by_side() -> None:
    orders = [torch.randperm(64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    parts: list[Codes] = []
    for seed, order in enumerate(orders):
        found = read_codes(tensors("m", random(16, 64, seed=seed), "gptq", 32, order), "m", (16, 64), "gptq")
        assert found is not None
        parts.append(found)
    x, both = random(2, 64), pack(parts, CPU)
    assert isinstance(both, SideBySide) and both.shape == (64, 32)
    torch.testing.assert_close(both.product(x), torch.cat([pack([p], CPU).product(x) for p in parts], 1))


def test_odd_sizes_are_turned_back_into_numbers() -> None:
    found = read_codes(tensors("m", random(24, 64), "gptq", 16), "m", (24, 64), "gptq")
    assert found is not None and isinstance(pack([found], CPU), Nibbles)


@torch.inference_mode()
@pytest.mark.parametrize("scheme", ["gptq", "gptq_v2", "awq"])
def test_a_4_bit_model_says_nearly_what_it_said(model: Path, tmp_path: Path, scheme: str) -> None:
    ids = list(range(40))
    small, whole = logits(write_int4(model, tmp_path / "q", scheme), ids), logits(model, ids)
    assert torch.nn.functional.cosine_similarity(small, whole).mean() > 0.95


@torch.inference_mode()
def test_an_8_bit_model_says_nearly_what_it_said_and_stays_small(model: Path, int8: Path) -> None:
    ids = list(range(40))
    assert torch.nn.functional.cosine_similarity(logits(int8, ids), logits(model, ids)).mean() > 0.995
    shape = read_shape(int8)
    layer = load_weights(int8, shape, torch.float32, CPU).layers[0]
    assert isinstance(layer.gate_up, Int8)
    assert layer.norm_in is not None


GPTQ = {"quant_method": "gptq", "bits": 8}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (GPTQ, "gptq, 8 bits is not read by this engine"),
        ({"quant_method": "fp8"}, "fp8 is not read by this engine"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq, 4 bits"),
        ({**quantization_config(), "format": "pack-quantized"}, "compressed-tensors is not read"),
        ({**quantization_config(), "config_groups": {"group_0": {}}}, "compressed-tensors is not read"),
    ],
)
def test_other_schemes_are_refused(model: Path, tmp_path: Path, said: dict[str, Any], message: str) -> None:
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    with pytest.raises(ModelLoadError, match=message):
        read_shape(tmp_path)


def test_a_part_that_does_not_fit_is_named(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    out = write_int4(model, tmp_path / "q")
    files = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    for broken, message in (
        ({**files, f"{name}.scales": files[f"{name}.scales"][:1]}, r"mlp\.up_proj"),
        ({k: v for k, v in files.items() if k != f"{name}.qzeros"}, r"no tensor .*up_proj\.qzeros"),
    ):
        save_file({k: v.contiguous() for k, v in broken.items()}, out / "model.safetensors")
        with pytest.raises(ModelLoadError, match=message):
            load_weights(out, read_shape(out), torch.float32, CPU)
