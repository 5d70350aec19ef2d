"""Group relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300, section 4 and algorithm 1).

    L = -sum_t w_t [ min(rho_t A_t, clip(rho_t, 1 - low, 1 + high) A_t) - beta KL_t ]

    rho_t = pi(o_t) / pi_old(o_t)      A_t = (r_i - mean(r)) / std(r) + sum over process rewards of weight_k A_kt
    KL_t  = q - 1 - log q,  q = pi_ref(o_t) / pi(o_t)                                     (k3, section 4.1.1)

Process rewards give a token the normalised rewards of the steps that end at it or later (section 4.1.3).

Departures. The defaults are those that later work found better, and all can be set back: `kl` is 0 and `clip` has a
higher upper bound, the loss is a mean over tokens and not over answers (DAPO, arXiv:2503.14476); `scale: none` and
`over: constant` are Dr. GRPO's (arXiv:2503.20783); `refill` and `mask_truncated` are DAPO's dynamic sampling and
overlong filtering. The paper mixes no outcome and process rewards; here they are added after normalisation. Where a
batch is used for one optimiser step pi_old is pi itself. The reference stays the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reason_engine.training import trainers
from reason_engine.training.common.encode import Rollout
from reason_engine.training.online.loop import Batch, Learner
from reason_engine.training.online.recipe import Clip, Online

if TYPE_CHECKING:
    from torch import Tensor


class GrpoConfig(Online):
    """Online training with advantages by group."""

    samples: int = Field(16, ge=2, description="Samples of each problem")
    clip: Clip = Field((0.2, 0.28), description="How far a ratio may fall and rise")
    kl: float = Field(0.0, ge=0, description="Weight of the divergence from where training began")
    scale: Literal["group", "batch", "none"] = Field("group", description="What a reward is divided by")
    over: Literal["token", "sequence", "constant"] = Field("token", description="What the loss is a mean over")

    @property
    def has_reference(self) -> bool:
        return self.kl > 0


@dataclass(frozen=True, slots=True)
class GroupSample(Rollout):
    """A sample with what its tokens are worth. `taught`: how many of them count. `old` and `reference` are
    log-probabilities, None where not needed."""

    advantages: Tensor
    taught: int
    old: Tensor | None
    reference: Tensor | None


@trainers.register("grpo")
class Groups(Learner[GrpoConfig, GroupSample]):
    """The learner: the clipped loss over every token of a batch."""

    config = GrpoConfig
    summary = "reinforcement learning on the model's own samples, judged by verifiers, by group"

    def teaches(self, item: GroupSample) -> bool:
        """One that counts, and is better or worse than its group or held by a divergence."""
        return item.taught > 0 and (self._config.kl > 0 or bool(item.advantages.any()))

    def items(self, batch: Batch) -> list[GroupSample]:
        """Advantages by group, of outcomes and steps; measures the old policy and the reference where needed."""
        rollouts, most = batch.rollouts, self._config.pass_tokens
        again = self._config.updates * self._config.minibatches > 1
        old = self._policy.measure(rollouts, most) if again else [None] * len(rollouts)
        reference = self._reference.measure(rollouts, most) if self._config.kl else [None] * len(rollouts)
        taught = [len(one.answer) * on for one, on in zip(rollouts, batch.taught(self._config), strict=True)]
        parts = zip(self.advantages(batch), taught, old, reference, strict=True)
        return [GroupSample(one.prompt, one.answer, *rest) for one, rest in zip(rollouts, parts, strict=True)]

    def advantages(self, batch: Batch) -> list[Tensor]:
        """One a token, a tensor a row."""
        import torch

        from reason_engine.training.common.advantages import group_advantages, process_advantages

        lengths, scale = [len(one.answer) for one in batch.rollouts], self._config.scale
        width = max(lengths)
        found_B = group_advantages(torch.tensor(batch.rewards.outcome), scale).flatten()
        found_BT = found_B[:, None].repeat(1, width)
        for weight, steps in batch.rewards.steps:
            found_BT += weight * process_advantages(steps, width, scale)
        return [found_BT[at, :length] for at, length in enumerate(lengths)]

    def loss(self, items: Sequence[GroupSample], whole: Sequence[GroupSample]) -> tuple[Tensor, dict[str, float]]:
        """Summed over the tokens of `items`, each with its share of `whole`."""
        import torch

        from reason_engine.training.common.advantages import clipped_policy_loss, kl_k3, token_weight

        now_N, entropy_N = self._policy.logprobs(items)
        old_N = now_N.detach() if items[0].old is None else torch.cat([_known(one.old) for one in items])
        advantages_N = torch.cat([one.advantages for one in items])
        lengths, over = [one.taught for one in whole], self._config.over
        shares = [token_weight(one.taught, lengths, over, self._config.max_tokens) for one in items]
        shares_N = torch.repeat_interleave(torch.tensor(shares), torch.tensor([len(one.answer) for one in items]))
        losses_N, cut_N = clipped_policy_loss(now_N, old_N, advantages_N, *self._config.clip)
        read = sum(len(one.answer) for one in whole if self.teaches(one))
        metrics = {"clip_fraction": (cut_N * shares_N).sum(), "entropy": entropy_N.sum() / read}
        if self._config.kl:
            kl_N = kl_k3(now_N, torch.cat([_known(one.reference) for one in items]))
            losses_N = losses_N + self._config.kl * kl_N
            metrics["kl"] = (kl_N.detach() * shares_N).sum()
        return (losses_N * shares_N).sum(), {name: value.item() for name, value in metrics.items()}


def _known(value: Tensor | None) -> Tensor:
    """What was measured."""
    assert value is not None
    return value
