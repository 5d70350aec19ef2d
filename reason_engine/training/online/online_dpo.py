"""Online direct preference optimisation (Guo et al. 2024, OAIF, arXiv:2402.04792, algorithm 1).

    L = -mean log sigmoid( beta [ log pi/pi_ref (chosen) - log pi/pi_ref (rejected) ] )

The pair is the best and the worst of a prompt's own samples; prompts whose samples are judged alike teach nothing.
Process rewards count by the mean over an answer's steps.

Departures: the paper draws two samples and lets a model choose; here any rewards rank `samples` of them. With more than
two samples the pair is the extreme one, which is easier to tell apart than a pair drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from reason_engine.training import trainers
from reason_engine.training.common.encode import Rollout
from reason_engine.training.online.loop import Batch, Learner
from reason_engine.training.online.recipe import Online

if TYPE_CHECKING:
    from torch import Tensor


class OnlineDpoConfig(Online):
    """Online training on pairs."""

    samples: int = Field(2, ge=2, description="Samples of each problem; the best and the worst are the pair")
    beta: float = Field(0.1, gt=0, description="How strongly the policy is held to where it began")


@dataclass(frozen=True, slots=True)
class RolloutPair:
    """Two answers to one prompt, with log pi_ref(chosen) - log pi_ref(rejected)."""

    chosen: Rollout
    rejected: Rollout
    reference: float

    @property
    def rollouts(self) -> Sequence[Rollout]:
        return (self.chosen, self.rejected)


@trainers.register("online-dpo")
class Pairs(Learner[OnlineDpoConfig, RolloutPair]):
    """The learner: the preference loss on pairs of its own."""

    config = OnlineDpoConfig
    summary = "preference optimisation on the best and the worst of the model's own samples"

    def items(self, batch: Batch) -> list[RolloutPair]:
        """One pair a prompt, none where all samples are worth the same (or both were cut, with `mask_truncated`)."""
        found: list[tuple[Rollout, Rollout]] = []
        for group, rewards in zip(batch.groups, batch.rewards.totals(), strict=True):
            worth = [
                (reward, row)
                for reward, row, path in zip(rewards, group.rollouts, group.paths, strict=True)
                if not (self._config.mask_truncated and path.finish_reason == "length")
            ]
            if len(worth) > 1:
                best, worst = max(worth, key=lambda one: one[0]), min(worth, key=lambda one: one[0])
                if best[0] > worst[0]:
                    found.append((best[1], worst[1]))
        rows = [row for pair in found for row in pair]
        sums = self._reference.measure_sums(rows, self._config.pass_tokens)
        return [RolloutPair(a, b, sums[2 * at] - sums[2 * at + 1]) for at, (a, b) in enumerate(found)]

    def loss(self, items: Sequence[RolloutPair], whole: Sequence[RolloutPair]) -> tuple[Tensor, dict[str, float]]:
        """Summed over `items`, each a share of `whole`."""
        import torch
        from torch.nn.functional import logsigmoid

        rows = [row for pair in items for row in pair.rollouts]
        now_N, entropy_N = self._policy.logprobs(rows)
        lengths = [len(row.answer) for row in rows]
        sums_B2 = torch.stack([part.sum() for part in now_N.split(lengths)]).view(-1, 2)
        margins_B = sums_B2[:, 0] - sums_B2[:, 1] - torch.tensor([pair.reference for pair in items])
        share = 1 / len(whole)
        metrics = {
            "margin": self._config.beta * margins_B.detach().sum().item() * share,
            "accuracy": (margins_B > 0).sum().item() * share,
            "entropy": sum(part.mean().item() for part in entropy_N.split(lengths)) * share / 2,
        }
        return -logsigmoid(self._config.beta * margins_B).sum() * share, metrics
