"""Proximal policy optimisation with a learned value (Schulman et al. 2017, arXiv:1707.06347, eq. 7 and 9), for language
models as in Ziegler et al. 2019 (arXiv:1909.08593, section 2.1) and Ouyang et al. 2022 (arXiv:2203.02155, section 3.5).

    L = mean_t [ -min(rho_t A_t, clip(rho_t) A_t) + c_v L_V ]         L_V = max((V - R)^2, (V_clipped - R)^2) / 2

    r_t = -beta log(pi_old / pi_ref)(y_t) + [t is the last token] r + process rewards at the ends of their steps
    A_t = sum_l (gamma lambda)^l delta_t+l,   delta_t = r_t + gamma V_t+1 - V_t,   R_t = A_t + V_t

The value V is a linear head, zero at first, over a body of its own that starts as a copy of the policy's; with `peft`
over the policy's frozen weights with an adapter of its own. V_t is read before token t is drawn. Advantages are
whitened over the batch.

Departures: rewards are any verifiers, not one reward model; beta is fixed, not adapted to a target (Ziegler 2.2); an
answer cut at max_tokens counts as ended there; there is no entropy bonus (eq. 9) and no pretraining mix (Ouyang).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from reason_engine.training import trainers
from reason_engine.training.common.encode import Rollout
from reason_engine.training.online.loop import Batch, Learner
from reason_engine.training.online.recipe import Clip, Online

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import Policy


class PpoConfig(Online):
    """Online training with a learned baseline."""

    trained: ClassVar[int] = 2

    samples: int = Field(1, ge=1, description="Samples of each problem")
    updates: int = Field(2, ge=1, description="Passes over the samples of a step")
    minibatches: int = Field(2, ge=1, description="Optimiser steps a pass")
    clip: Clip = Field((0.2, 0.2), description="How far a ratio may fall and rise")
    kl: float = Field(0.05, ge=0, description="Weight of the divergence within the reward")
    gamma: float = Field(1.0, gt=0, le=1)
    decay: float = Field(0.95, ge=0, le=1, description="lambda of the advantages")
    value_clip: float = Field(0.2, gt=0, description="How far a value may move in one step")
    value_weight: float = Field(0.5, ge=0)
    value_rate: float | None = Field(None, gt=0, description="Rate of the value; none: that of the policy")

    @property
    def has_reference(self) -> bool:
        return self.kl > 0


@dataclass(frozen=True, slots=True)
class ValuedSample(Rollout):
    """A sample with its tokens' advantages, returns, and log-probabilities and values when it was drawn."""

    advantages: Tensor
    returns: Tensor
    old: Tensor
    values: Tensor
    kl: float


@trainers.register("ppo")
class ActorCritic(Learner[PpoConfig, ValuedSample]):
    """The learner: the policy's clipped loss and the value's."""

    config = PpoConfig
    summary = "reinforcement learning on the model's own samples, against a learned value"

    def __init__(self, config: PpoConfig, policy: Policy, reference: Policy) -> None:
        from reason_engine.training.common.policy import value_of

        super().__init__(config, policy, reference)
        self.modules["value"] = self.value = value_of(reference.model, config)
        self.rates["value"] = config.value_rate or config.rate

    def items(self, batch: Batch) -> list[ValuedSample]:
        """Values and advantages of every token, before anything is learned from them."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        from reason_engine.training.common.advantages import gae, whiten

        rollouts, most = batch.rollouts, self._config.pass_tokens
        old, values = self._policy.measure(rollouts, most), self.value.measure(rollouts, most)
        start = self._reference.measure(rollouts, most) if self._config.kl else old
        away = [now - then for now, then in zip(old, start, strict=True)]
        rewards = [r - self._config.kl * kl for r, kl in zip(token_rewards(batch), away, strict=True)]
        mask_BT = pad_sequence([torch.ones(len(one.answer)) for one in rollouts], batch_first=True)
        rewards_BT, values_BT = (pad_sequence(one, batch_first=True) for one in (rewards, values))
        advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, self._config.gamma, self._config.decay)
        # What the critic learns of an answer that is masked is right all the same; the policy learns nothing of it.
        taught_B1 = torch.tensor(batch.taught(self._config), dtype=torch.float)[:, None]
        advantages_BT = whiten(advantages_BT, mask_BT * taught_B1)
        sums = [one.sum().item() for one in away]
        parts = zip(rollouts, advantages_BT, returns_BT, old, values, sums, strict=True)
        return [
            ValuedSample(one.prompt, one.answer, gains[: len(one.answer)], ends[: len(one.answer)], *rest)
            for one, gains, ends, *rest in parts
        ]

    def loss(self, items: Sequence[ValuedSample], whole: Sequence[ValuedSample]) -> tuple[Tensor, dict[str, float]]:
        """Summed over the tokens of `items`, all alike, as a share of those of `whole`."""
        import torch

        from reason_engine.training.common.advantages import clipped_policy_loss, clipped_value_loss

        share = 1 / sum(len(one.answer) for one in whole)
        now_N, entropy_N = self._policy.logprobs(items)
        values_N = self.value(items)
        parts = zip(*((one.old, one.advantages, one.returns, one.values) for one in items), strict=True)
        old_N, advantages_N, returns_N, before_N = map(torch.cat, parts)
        losses_N, cut_N = clipped_policy_loss(now_N, old_N, advantages_N, *self._config.clip)
        wrong_N = clipped_value_loss(values_N, before_N, returns_N, self._config.value_clip)
        metrics = {
            "clip_fraction": cut_N.sum().item() * share,
            "entropy": entropy_N.sum().item() * share,
            "value_loss": wrong_N.detach().sum().item() * share,
            "kl": sum(one.kl for one in items) / len(whole),
        }
        return (losses_N + self._config.value_weight * wrong_N).sum() * share, metrics


def token_rewards(batch: Batch) -> list[Tensor]:
    """Rewards by token, a tensor a rollout: outcomes at the last token, those of steps where the steps end."""
    import torch

    found = [torch.zeros(len(one.answer)) for one in batch.rollouts]
    for at, reward in enumerate(reward for group in batch.rewards.outcome for reward in group):
        found[at][-1] += reward
    for weight, table in batch.rewards.steps:
        for at, steps in enumerate(one for group in table for one in group):
            for place, reward in steps:
                found[at][place] += weight * reward
    return found
