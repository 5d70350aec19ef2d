"""Muon in single precision: torch's own step up to the rounding of bf16, and matrices that are orthogonal."""

from __future__ import annotations

import pytest
import torch

from reason_engine.training.common.optimisers import Muon32, orthogonal


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (24, 24)])
def test_it_moves_weights_as_torchs_own_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    start = torch.randn(shape)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon32([ours], lr=0.1, weight_decay=0.1, momentum=0.95)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=0.95)
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved
    assert moved > 1


def test_its_update_is_nearly_orthogonal() -> None:
    torch.manual_seed(2)
    found = orthogonal(torch.randn(12, 30), (3.4445, -4.7750, 2.0315), 5)
    sizes = torch.linalg.svdvals(found)
    assert sizes.min() > 0.5 and sizes.max() < 1.3
    assert found.dtype == torch.float32


def test_a_weight_without_a_gradient_stays_and_a_closure_tells_its_loss() -> None:
    still, moved = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))
    optimiser = Muon32([still, moved], lr=0.1, weight_decay=0.0)
    moved.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert optimiser.step(lambda: 7.0) == 7.0
    assert torch.equal(still, torch.ones(2, 2)) and not torch.equal(moved, torch.ones(2, 2))
