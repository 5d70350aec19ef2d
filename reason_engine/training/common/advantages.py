"""The mathematics of policy gradients: what samples are worth, and the losses of them.

Differentiable where that has a meaning, and nothing is drawn. Shape suffixes: P prompts, G samples of each, B = P G
rows, T places (place t holds the token that position t predicts), N generated tokens of all rows. `mask_BT` is 1 on
generated tokens and 0 on prompt and padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to a standard deviation, so that a group that differs by rounding alone is not blown up."""

Scale = Literal["group", "batch", "none"]
Over = Literal["token", "sequence", "constant"]


def group_advantages(rewards_PG: Tensor, scale: Scale) -> Tensor:
    """A_i = (r_i - mean(r)) / std: by the group's own deviation (GRPO, arXiv:2402.03300, eq. 3-4), by that of all
    rewards of the batch (arXiv:2508.08221, section 4.2), or not divided at all (Dr. GRPO, arXiv:2503.20783)."""
    alike_P1 = rewards_PG.amax(1, keepdim=True) == rewards_PG.amin(1, keepdim=True)  # the mean may round off a value
    centred_PG = (rewards_PG - rewards_PG.mean(1, keepdim=True)).masked_fill(alike_P1, 0.0)
    if scale == "none":
        return centred_PG
    spread = _deviation(rewards_PG.flatten()) if scale == "batch" else rewards_PG.std(1, keepdim=True)
    return centred_PG / (spread + EPSILON)


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """A_i = r_i - mean of the other rewards of its group (RLOO, arXiv:2402.14740, section 4.2)."""
    count = rewards_PG.shape[1]
    alike_P1 = rewards_PG.amax(1, keepdim=True) == rewards_PG.amin(1, keepdim=True)
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)).masked_fill(alike_P1, 0.0) * count / (count - 1)


def process_advantages(steps: Sequence[Sequence[Sequence[tuple[int, float]]]], length: int, scale: Scale) -> Tensor:
    """A_it = sum of the normalised rewards of the steps of sample i that end at t or later (arXiv:2402.03300, 4.1.3).

    `steps[p][g]` are (place of the step's last token, reward). Rewards are normalised over all steps of their group;
    the batch's deviation is over all steps of all groups. (B, T).
    """
    flat = [torch.tensor([reward for one in group for _, reward in one]) for group in steps]
    whole = torch.cat(flat) if flat else torch.zeros(0)
    rows: list[Tensor] = []
    for group, pooled in zip(steps, flat, strict=True):
        spread = _deviation(pooled if scale == "group" else whole) + EPSILON if scale != "none" else 1.0
        mean = pooled.mean() if len(pooled) else 0.0
        for one in group:
            rewards_T = torch.zeros(length)
            for place, reward in one:
                rewards_T[place] += (reward - mean) / spread
            rows.append(rewards_T.flip(0).cumsum(0).flip(0))
    return torch.stack(rows)


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, decay: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T), 0 off the mask; after the last token the value is 0.

        delta_t = r_t + gamma V_t+1 - V_t,    A_t = delta_t + gamma lambda A_t+1,    R_t = A_t + V_t

    Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438, eq. 16). The mask is one run a row.
    """
    values_BT = values_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value = next_advantage = torch.zeros_like(rewards_BT[:, 0])
    for t in reversed(range(rewards_BT.shape[1])):
        delta = rewards_BT[:, t] + gamma * next_value - values_BT[:, t]
        next_advantage = (delta + gamma * decay * next_advantage) * mask_BT[:, t]
        advantages_BT[:, t], next_value = next_advantage, values_BT[:, t]
    return advantages_BT, advantages_BT + values_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """To mean 0 and deviation 1 over the mask; 0 off it."""
    count = mask_BT.sum().clamp(min=1)
    centred_BT = (values_BT - (values_BT * mask_BT).sum() / count) * mask_BT
    return centred_BT / ((centred_BT**2).sum() / count + EPSILON**2).sqrt()


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """(loss, 1 where the clip took the gradient away), of any one shape.

        -min(rho A, clip(rho, 1 - low, 1 + high) A),    rho = exp(log pi - log pi_old)

    PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7); two bounds as in DAPO (arXiv:2503.14476, section 3.1).
    """
    ratio = (logprobs - old).exp()
    plain, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, bounded), (bounded < plain).float()


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (V_old + clip(V - V_old) - R)^2) / 2: a value moves no further than `clip` in one batch."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi | reference) from tokens of pi: q - 1 - log q, q = p_ref / p; unbiased, never negative (Schulman 2020)."""
    log_ratio = reference - logprobs
    return log_ratio.exp() - 1 - log_ratio


def token_weight(length: int, whole: Sequence[int], over: Over, most: int) -> float:
    """The weight of each token of an answer in the loss over answers of the lengths `whole`, where 0 does not count.

    `token`: all tokens alike (DAPO); `sequence`: answers alike, tokens alike within one (GRPO); `constant`: 1 in
    answers times `most`, so that a long answer neither gains nor loses (Dr. GRPO).
    """
    if not length:
        return 0.0
    if over == "sequence":
        return 1 / sum(one > 0 for one in whole) / length
    return 1 / sum(whole) if over == "token" else 1 / len(whole) / most


def _deviation(values_N: Tensor) -> Tensor:
    return values_N.std() if len(values_N) > 1 else torch.zeros(())
