"""REINFORCE leave-one-out (Ahmadian et al. 2024, "Back to Basics", arXiv:2402.14740, section 4.2).

    L = -mean_i [ A_i log pi(y_i | x) ]      A_i = R_i - mean_{j != i} R_j      R_i = r_i - beta sum_t log(pi / pi_ref)

An answer is one action: the advantage multiplies the log-probability of all of it, and the divergence is a part of the
reward, not of the loss. Process rewards count by the mean over an answer's steps.

Departures: where a batch is used for several optimiser steps the ratio of whole answers is clipped as in PPO, and
`normalise` divides advantages by the batch's deviation; the paper does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from reason_engine.training import trainers
from reason_engine.training.common.encode import Rollout
from reason_engine.training.online.loop import Batch, Learner
from reason_engine.training.online.recipe import Clip, Online

if TYPE_CHECKING:
    from torch import Tensor


class RlooConfig(Online):
    """Online training with the other samples' mean as the baseline."""

    samples: int = Field(4, ge=2, description="Samples of each problem")
    kl: float = Field(0.03, ge=0, description="Weight of the divergence within the reward")
    clip: Clip = Field((0.2, 0.2), description="How far an answer's ratio may fall and rise")
    normalise: bool = False

    @property
    def has_reference(self) -> bool:
        return self.kl > 0


@dataclass(frozen=True, slots=True)
class JudgedAnswer(Rollout):
    """A sample, what it is worth, and its log-probability when it was drawn. `taught`: whether it counts."""

    advantage: float
    taught: bool
    old: float
    kl: float


@trainers.register("rloo")
class LeaveOneOut(Learner[RlooConfig, JudgedAnswer]):
    """The learner: REINFORCE over whole answers."""

    config = RlooConfig
    summary = "REINFORCE on whole answers, each against the mean of the others to its prompt"

    def teaches(self, item: JudgedAnswer) -> bool:
        """One that counts, and is better or worse than the others."""
        return item.taught and item.advantage != 0

    def items(self, batch: Batch) -> list[JudgedAnswer]:
        """Advantages against the other samples of each prompt."""
        import torch

        from reason_engine.training.common.advantages import leave_one_out

        rollouts, most = batch.rollouts, self._config.pass_tokens
        again = self._config.updates * self._config.minibatches > 1
        old = self._policy.measure_sums(rollouts, most) if again or self._config.kl else [0.0] * len(rollouts)
        start = self._reference.measure_sums(rollouts, most) if self._config.kl else old
        kl = [now - then for now, then in zip(old, start, strict=True)]
        rewards_PG = torch.tensor(batch.rewards.totals())
        rewards_PG = rewards_PG - self._config.kl * torch.tensor(kl).view_as(rewards_PG)
        advantages_PG = leave_one_out(rewards_PG)
        if self._config.normalise:
            advantages_PG = advantages_PG / (rewards_PG.std() + 1e-4)
        taught = batch.taught(self._config)
        advantages: list[float] = advantages_PG.flatten().tolist()
        parts = zip(advantages, taught, old, kl, strict=True)
        return [JudgedAnswer(one.prompt, one.answer, *rest) for one, rest in zip(rollouts, parts, strict=True)]

    def loss(self, items: Sequence[JudgedAnswer], whole: Sequence[JudgedAnswer]) -> tuple[Tensor, dict[str, float]]:
        """Summed over `items`, each a share of `whole`."""
        import torch

        from reason_engine.training.common.advantages import clipped_policy_loss

        lengths = [len(one.answer) for one in items]
        now_N, entropy_N = self._policy.logprobs(items)
        now_B = torch.stack([part.sum() for part in now_N.split(lengths)])
        again = self._config.updates * self._config.minibatches > 1
        old_B = torch.tensor([one.old for one in items]) if again else now_B.detach()
        advantages_B = torch.tensor([one.advantage for one in items])
        losses_B, cut_B = clipped_policy_loss(now_B, old_B, advantages_B, *self._config.clip)
        counts_B = torch.tensor([float(one.taught) for one in items])
        share = 1 / max(1, sum(one.taught for one in whole))
        metrics = {
            "clip_fraction": (cut_B * counts_B).sum().item() * share,
            "entropy": sum(part.mean().item() for part in entropy_N.split(lengths)) / sum(map(self.teaches, whole)),
            "kl": sum(one.kl for one in items) / sum(map(self.teaches, whole)),
        }
        return (losses_B * counts_B).sum() * share, metrics
