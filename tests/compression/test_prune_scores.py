"""The mathematics of pruning, by numbers made by hand."""

from __future__ import annotations

import pytest
import torch

from reason_engine.compression.prune import structured
from reason_engine.compression.prune.structured import (
    LayerSizes,
    columns_of,
    highest,
    importance,
    reconstructed,
    sizes_after,
)
from reason_engine.compression.prune.unstructured import DAMPING, inverse_root, lowest, sparsegpt, two_of_four, wanda
from reason_engine.errors import SetupError


def test_wanda_weighs_inputs() -> None:
    weight_OI = torch.tensor([[3.0, -2.0, 1.0, 0.5]])
    squares_I = torch.tensor([1.0, 1.0, 16.0, 100.0])  # norms 1, 1, 4, 10
    assert wanda(weight_OI, squares_I).tolist() == [[3.0, 2.0, 4.0, 5.0]]
    assert lowest(wanda(weight_OI, squares_I), 0.5, True).tolist() == [[True, True, False, False]]
    assert lowest(weight_OI.abs(), 0.5, True).tolist() == [[False, False, True, True]]


def test_the_share_goes_of_each_output_or_of_the_matrix() -> None:
    score_OI = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    assert lowest(score_OI, 0.5, True).tolist() == [[True, True, False, False]] * 2
    assert lowest(score_OI, 0.5, False).tolist() == [[True] * 4, [False] * 4]


def test_two_of_each_four_go() -> None:
    score_OI = torch.tensor([[1.0, 2.0, 3.0, 4.0, 8.0, 7.0, 6.0, 5.0]])
    assert two_of_four(score_OI).tolist() == [[True, True, False, False, False, False, True, True]]


def test_inverse_root() -> None:
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    gram_II = rows.T @ rows
    upper_II = inverse_root(gram_II)
    damped_II = gram_II + DAMPING * gram_II.diagonal().mean() * torch.eye(6)
    assert torch.allclose(upper_II.T @ upper_II @ damped_II, torch.eye(6), atol=1e-4)
    assert torch.equal(upper_II, upper_II.triu())


def test_sparsegpt_moves_what_goes_onto_what_is_behind_it() -> None:
    # The first of two inputs goes: the least squared error puts w_1 H_12 / H_22 of it onto the second.
    gram_II = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    found_OI = sparsegpt(torch.tensor([[0.1, 5.0]]), gram_II, 0.5, False)
    assert found_OI[0, 0] == 0
    assert found_OI[0, 1].item() == pytest.approx(5 + 0.1 * 1 / (3 + DAMPING * 2.5), rel=1e-5)


def test_sparsegpt_errs_less_than_wanda_over_blocks() -> None:
    maker = torch.Generator().manual_seed(1)
    alike = torch.randn(500, 40, generator=maker) @ torch.randn(40, 160, generator=maker)
    rows = alike + torch.randn(500, 160, generator=maker)  # inputs that can stand in for one another
    weight_OI, gram_II = torch.randn(24, 160, generator=maker), rows.T @ rows
    for fours in (False, True):
        own_OI = sparsegpt(weight_OI, gram_II, 0.5, fours)
        score_OI = wanda(weight_OI, gram_II.diagonal())
        other_OI = weight_OI.masked_fill(two_of_four(score_OI) if fours else lowest(score_OI, 0.5, True), 0)
        assert ((own_OI == 0).float().mean() - 0.5).abs() < 0.01
        errors = [(rows @ (weight_OI - some_OI).T).norm() for some_OI in (own_OI, other_OI)]
        assert errors[0] < 0.8 * errors[1]
        if fours:
            assert ((own_OI.reshape(-1, 4) == 0).sum(1) == 2).all()


def test_what_stays_makes_up_for_what_goes() -> None:
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    rows = torch.cat([rows, rows[:, :1] - 2 * rows[:, 1:2]], 1)  # the last column is a mix of the first two
    weight_OI = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    kept = torch.tensor([0, 1, 2])
    found_OK = reconstructed(weight_OI, rows.T @ rows, kept)
    assert found_OK[0].tolist() == pytest.approx([2, -1, 1], abs=0.05)


def test_importance_and_places() -> None:
    weight_OI = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert importance(weight_OI, torch.tensor([2.0, 5.0])).tolist() == [20.0, 20.0]
    assert highest(torch.tensor([1.0, 9.0, 5.0, 9.0]), 2).tolist() == [1, 3]
    assert columns_of(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]


BEFORE = LayerSizes(hidden=64, heads=8, kv_heads=4, head_dim=16, inner=256)
"""24,576 in attention, 49,152 in the MLP, 73,728 a layer."""


@pytest.mark.parametrize(
    ("rate", "multiple", "kv_heads", "may_go", "heads", "inner"),
    [
        # one of four groups: 6,144; 30 % are 22,118; 15,974 of 192 a channel are 83.2: 172 left, 160 by 32
        (0.3, 32, None, True, (6, 3), 160),
        (0.3, 4, None, True, (6, 3), 172),
        (0.3, 32, None, False, (8, 4), 128),
        (0.3, 32, 2, True, (4, 2), 192),
        (0.05, 1, None, True, (8, 4), 236),
    ],
)
def test_narrowed(
    rate: float, multiple: int, kv_heads: int | None, may_go: bool, heads: tuple[int, int], inner: int
) -> None:
    after = sizes_after(BEFORE, rate, multiple, kv_heads, may_go)
    assert ((after.heads, after.kv_heads), after.inner) == (heads, inner)
    assert after.parameters <= (1 - rate) * BEFORE.parameters + 3 * 64


@pytest.mark.parametrize(
    ("rate", "kv_heads", "said"),
    [(0.9, 4, "rate: 0.9 of a layer cannot be pruned.*at most 0.58"), (0.3, 5, "kv_heads: must be 1 to 4")],
)
def test_narrowed_refuses(rate: float, kv_heads: int, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        sizes_after(BEFORE, rate, 32, kv_heads, True)


def test_layers_of_the_least_influence_go() -> None:
    kept = structured.kept_layers([0.5, 0.1, 0.9, 0.2], 2)
    assert kept == [0, 2]
    assert structured.renamed_tensor("model.layers.2.mlp.up_proj.weight", kept) == "model.layers.1.mlp.up_proj.weight"
    assert (
        structured.renamed_tensor("model.layers.12.mlp.up_proj.weight", [3, 12]) == "model.layers.1.mlp.up_proj.weight"
    )
    assert structured.renamed_tensor("model.layers.1.mlp.up_proj.weight", kept) is None
    assert structured.renamed_tensor("model.norm.weight", kept) == "model.norm.weight"
    assert structured.depth_settings({"layer_types": ["a", "b", "c"]}, [0, 2]) == {
        "num_hidden_layers": 2,
        "layer_types": ["a", "c"],
    }
    assert [structured.dropped_count(8, rate) for rate in (0.01, 0.25, 0.3)] == [1, 2, 2]
    with pytest.raises(SetupError, match=r"rate: 0.9 of 4 layers leaves none"):
        structured.dropped_count(4, 0.9)
