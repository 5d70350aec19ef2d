"""The mathematics of policy gradients against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from reason_engine.training.common import advantages as adv


def near(found: torch.Tensor, wanted: object, within: float = 1e-5) -> None:
    torch.testing.assert_close(found, torch.tensor(wanted), atol=within, rtol=0)


def test_group_advantages_by_group_batch_and_not_at_all() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    half, deviation = 0.5, math.sqrt(1 / 3)
    near(
        adv.group_advantages(rewards, "group"),
        [[x / (deviation + 1e-4) for x in (half, -half, -half, half)], [0.0] * 4],
    )
    near(adv.group_advantages(rewards, "none"), [[half, -half, -half, half], [0.0] * 4])
    spread = math.sqrt(sum((x - 1.25) ** 2 for x in (1, 0, 0, 1, 2, 2, 2, 2)) / 7) + 1e-4
    near(adv.group_advantages(rewards, "batch")[0, :2], [half / spread, -half / spread])


def test_leave_one_out() -> None:
    near(adv.leave_one_out(torch.tensor([[3.0, 1.0, 2.0]])), [[1.5, -1.5, 0.0]])


def test_process_advantages_sum_what_is_still_to_come() -> None:
    # Two samples: steps end at 1 and 3 with rewards 1 and 0; at 2 with reward 2. The group's mean is 1.
    found = adv.process_advantages([[[(1, 1.0), (3, 0.0)], [(2, 2.0)]]], 4, "none")
    near(found, [[-1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 0.0]])
    scaled = adv.process_advantages([[[(1, 1.0), (3, 0.0)], [(2, 2.0)]]], 4, "group")
    near(scaled, [[x / 1.0001 for x in row] for row in found.tolist()])
    assert not adv.process_advantages([[[], []]], 3, "group").any()


def test_gae() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.4, 0.2, 7.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    last = 1 - 0.2
    middle = 0.9 * 0.2 - 0.4 + 0.9 * 0.5 * last
    first = 0.9 * 0.4 - 0.5 + 0.9 * 0.5 * middle
    # The last place is padding: neither its reward nor its value may leak in.
    rewards[0, 3] = 0.0
    advantages, returns = adv.gae(rewards, values, mask, 0.9, 0.5)
    near(advantages, [[first, middle, last, 0.0]])
    near(returns, [[first + 0.5, middle + 0.4, 1.0, 0.0]])


def test_gae_with_both_at_one_is_the_reward_to_go() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    _, returns = adv.gae(rewards, torch.randn(1, 3), torch.ones(1, 3), 1.0, 1.0)
    near(returns, [[6.0, 5.0, 3.0]])


def test_whiten() -> None:
    found = adv.whiten(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]]))
    near(found, [[-1.0, 1.0, 0.0]])


@pytest.mark.parametrize(
    "ratio, advantage, loss, cut",
    [
        (1.0, 2.0, -2.0, 0.0),
        (1.5, 2.0, -2 * 1.28, 1.0),
        (1.5, -2.0, 3.0, 0.0),
        (0.5, -2.0, 2 * 0.8, 1.0),
        (0.5, 2.0, -1.0, 0.0),
    ],
)
def test_clip(ratio: float, advantage: float, loss: float, cut: float) -> None:
    now = torch.tensor([math.log(ratio)], requires_grad=True)
    found, was_cut = adv.clipped_policy_loss(now, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.28)
    near(found.detach(), [loss])
    near(was_cut, [cut])
    found.sum().backward()
    assert now.grad is not None and bool(now.grad.any()) == (not cut)


def test_clipped_values_take_the_worse() -> None:
    found = adv.clipped_value_loss(torch.tensor([2.0, 0.1]), torch.zeros(2), torch.tensor([2.0, 1.0]), 0.5)
    near(found, [0.5 * 1.5**2, 0.5 * 0.9**2])


def test_k3_is_the_divergence_on_average() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    found = (p * adv.kl_k3(p.log(), q.log())).sum()
    near(found, float((p * (p / q).log()).sum()))
    assert adv.kl_k3(torch.tensor([0.0]), torch.tensor([0.0])).item() == 0
    assert (adv.kl_k3(p.log(), q.log()) >= 0).all()


def test_token_share() -> None:
    whole = (3, 1, 0)
    assert [adv.token_weight(n, whole, "token", 8) for n in whole] == [0.25, 0.25, 0]
    assert [adv.token_weight(n, whole, "sequence", 8) for n in whole] == [pytest.approx(1 / 6), 0.5, 0]
    assert [adv.token_weight(n, whole, "constant", 8) for n in whole] == [pytest.approx(1 / 24)] * 2 + [0]
