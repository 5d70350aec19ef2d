"""Quantisation-aware training: what the forward pass sees is what is stored, and gradients pass straight through."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from reason_engine.errors import SetupError
from reason_engine.training.run import run
from reason_engine.training.supervised.sft import (
    FakeQuantisation,
    Qat,
    SftConfig,
    codes4,
    contrastive_loss,
    fake_quantised,
    plain4,
    rounded8,
)

GROUP = Qat(bits=4, group=32)


def test_four_bits_by_hand() -> None:
    weight_OI = torch.zeros(1, 32)
    weight_OI[0, :4] = torch.tensor([-7.5, 7.5, 0.6, -3.4])  # s = 2 · 7.5 / 15 = 1
    code_OI, scale_OG = codes4(weight_OI, 32)
    assert scale_OG.tolist() == [[1.0]] and scale_OG.dtype == torch.float16
    assert code_OI[0, :5].tolist() == [0, 15, 9, 5, 8]  # 7.5 rounds to 8, which is beyond the top
    assert plain4(code_OI, scale_OG)[0, :5].tolist() == [-8, 7, 1, -3, 0]


def test_each_group_has_its_scale_and_zeros_stay_zero() -> None:
    weight_OI = torch.cat([torch.full((1, 32), 0.75), torch.full((1, 32), -75.0), torch.zeros(1, 32)], 1)
    code_OI, scale_OG = codes4(weight_OI, 32)
    assert scale_OG[0, :2].tolist() == pytest.approx([0.1, 10], rel=1e-3)
    assert (plain4(code_OI, scale_OG)[0, 64:] == 0).all() and torch.isfinite(scale_OG).all()


def test_eight_bits_by_hand() -> None:
    values = torch.tensor([[127.0, 1.4, -126.6], [0.0, 0.0, 0.0]])
    assert rounded8(values).tolist() == [[127, 1, -127], [0, 0, 0]]


@pytest.mark.parametrize("qat", [GROUP, Qat(bits=8)])
def test_the_gradient_is_that_of_the_plain_weight(qat: Qat) -> None:
    weight_OI = torch.randn(3, 32, requires_grad=True)
    seen_OI = fake_quantised(weight_OI, qat)
    assert not torch.equal(seen_OI, weight_OI)
    (seen_OI * torch.arange(32)).sum().backward()
    assert torch.equal(weight_OI.grad, torch.arange(32.0).expand(3, 32))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.other = nn.Linear(32, 8), nn.Linear(32, 8)


def test_only_the_seven_matrices_are_faked_and_it_can_be_switched_off() -> None:
    layer, inputs = Layer(), torch.randn(2, 32)
    plain, other = layer.q_proj(inputs), layer.other(inputs)
    faking = FakeQuantisation(layer, GROUP)
    seen = inputs @ plain4(*codes4(layer.q_proj.weight, 32)).T + layer.q_proj.bias
    assert torch.allclose(layer.q_proj(inputs), seen, atol=1e-6) and not torch.allclose(seen, plain)
    assert torch.equal(layer.other(inputs), other)
    with faking.off():
        assert torch.equal(layer.q_proj(inputs), plain)
    assert not torch.equal(layer.q_proj(inputs), plain)


def test_eight_bits_round_activations_token_by_token() -> None:
    layer, inputs = Layer(), torch.randn(2, 32)
    FakeQuantisation(layer, Qat(bits=8))
    seen = rounded8(inputs) @ rounded8(layer.q_proj.weight).T + layer.q_proj.bias
    assert torch.allclose(layer.q_proj(inputs), seen, atol=1e-5)


def test_contrast_by_hand() -> None:
    states_ND = torch.tensor([[2.0, 0.0], [4.0, 0.0], [0.0, 1.0]])
    rows_N = torch.tensor([0, 0, 1])
    same = contrastive_loss(states_ND, states_ND, rows_N, 2, 0.5).item()
    assert same == pytest.approx(math.log(1 + math.exp(-1 / 0.5)))
    crossed_ND = states_ND[:, [1, 0]]
    assert contrastive_loss(states_ND, crossed_ND, rows_N, 2, 0.5).item() == pytest.approx(math.log(1 + math.exp(2.0)))


def recipe(out: Path, **changes: Any) -> SftConfig:
    new = {"width": 64, "layers": 1, "intermediate": 64, "heads": 2, "kv_heads": 1, "head_dim": 32}
    return SftConfig.model_validate(
        {
            "out": out,
            "tokens": 2500,
            "batch": 24,
            "precision": "fp32",
            "threads": 1,
            "log_every": 1,
            "architecture": {**new, "context": 256, "vocabulary": 400, "tokenizer_examples": 100},
            "mixture": [{"family": "value", "share": 1}],
            **changes,
        }
    )


def test_trained_weights_are_kept_whole_with_their_grid(tmp_path: Path) -> None:
    run("sft", recipe(tmp_path / "o", qat={"bits": 4, "group": 32, "contrastive": 0.5}))
    rows = [json.loads(row) for row in (tmp_path / "o" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] and all(row["contrast"] > 0 for row in rows)
    assert json.loads((tmp_path / "o" / "qat.json").read_text()) == {"bits": 4, "group": 32}
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "o" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    assert json.loads((tmp_path / "o" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qat": 5}, "qat.bits"),
        ({"qat": {"bits": 8, "group": 32}}, "group: is for 4 bits"),
        ({"qat": {"group": 48}}, "qat.group"),
        ({"qat": 4, "compile": True}, "leave peft out, and compile false"),
        ({"qat": {"contrastive": -1}}, "qat.contrastive"),
    ],
)
def test_wrong_sections_are_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        recipe(tmp_path / "o", **changes)
    first = raised.value.errors()[0]
    assert said in f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def test_a_group_that_does_not_divide_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"qat.group: model.layers.0.self_attn.q_proj has 64 inputs"):
        run("sft", recipe(tmp_path / "o", qat={"bits": 4, "group": 128}))
    assert not (tmp_path / "o" / "model.safetensors").exists()
