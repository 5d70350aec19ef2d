"""Calibration layer by layer: sums over all rows' own tokens, whatever they are batched with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reason_engine.compression import layerwise
from reason_engine.compression.layerwise import LayerwiseRun, batches, symmetric
from reason_engine.compression.matrices import MATRICES
from reason_engine.training.common.models import load_model
from tests.models import write_model

ROWS = [list(range(10, 10 + n)) for n in (7, 3, 12, 12, 5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_model(tmp_path_factory.mktemp("m") / "tiny", scale=1.0, num_hidden_layers=2)
    return load_model(folder)[0].eval().requires_grad_(False)


def inputs(model: Any, layer: int, name: str) -> torch.Tensor:
    """What a matrix reads on all rows, one row at a time, [N, I]."""
    seen: list[torch.Tensor] = []
    linear = model.model.layers[layer].get_submodule(name)
    with linear.register_forward_pre_hook(lambda _, args: seen.append(args[0][0])):
        for row in ROWS:
            model(torch.tensor([row]), use_cache=False)
    return torch.cat(seen)


@pytest.mark.parametrize("tokens", [1, 24, 4096])
def test_sums_are_of_the_rows_own_tokens(model: Any, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layerwise, "BATCH", tokens)
    run = LayerwiseRun(model, ROWS, "fp32")
    for at, layer in enumerate(model.model.layers):
        grams, squares = run.grams(layer, MATRICES), run.squares(layer, MATRICES)
        for name in MATRICES:
            rows_NI = inputs(model, at, name)
            assert torch.allclose(grams[name], rows_NI.T @ rows_NI, atol=1e-3, rtol=1e-4), name
            assert torch.allclose(squares[name], grams[name].diagonal(), atol=1e-3, rtol=1e-4), name
        run.advance(layer)


def test_bf16_comes_near_and_sums_in_fp32(model: Any) -> None:
    layer = model.model.layers[0]
    exact = LayerwiseRun(model, ROWS, "fp32").grams(layer, MATRICES)
    short = LayerwiseRun(model, ROWS, "bf16").grams(layer, MATRICES)
    for name in MATRICES:
        assert short[name].dtype == torch.float32
        assert (short[name] - exact[name]).norm() < 0.03 * exact[name].norm(), name


def test_influence_leaves_the_padding_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[float]] = []
    for tokens in (1, 4096):
        monkeypatch.setattr(layerwise, "BATCH", tokens)
        run = LayerwiseRun(model, ROWS, "fp32")
        found.append([run.influence(layer) for layer in model.model.layers])
    assert found[0] == pytest.approx(found[1], abs=1e-6) and found[0][0] > 1e-4


def test_a_pass_ends_where_nothing_more_is_asked(model: Any) -> None:
    layer, passed = model.model.layers[0], list[int]()
    run = LayerwiseRun(model, ROWS, "fp32")
    with layer.mlp.register_forward_pre_hook(lambda *_: passed.append(1)):
        run.grams(layer, ("self_attn.o_proj",))
        assert not passed
        run.grams(layer, ("mlp.down_proj",))
        assert passed


def test_rows_of_about_one_length_are_together() -> None:
    found = batches(ROWS, 24)
    assert [[len(row) for row in group] for group in found] == [[12, 12], [7, 5, 3]]
    assert [len(group) for group in batches(ROWS, 1)] == [1] * 5


def test_a_gram_is_its_own_transpose() -> None:
    rows_NI = torch.randn(9, 13, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(symmetric(rows_NI), rows_NI.T @ rows_NI, atol=1e-5)
