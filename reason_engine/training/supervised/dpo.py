"""Direct preference optimisation: the better answer gains probability on the worse one, held by a reference.

    L = −log σ(β [log π(y_w|x)/π_ref(y_w|x) − log π(y_l|x)/π_ref(y_l|x)])          π_ref: the model as it was

Rafailov et al. 2023, arXiv:2305.18290, eq. 7. Additions, off unless asked for: `smoothing` ε takes the labels as wrong
that often (Mitchell 2023, "cDPO"): −(1−ε) log σ(βz) − ε log σ(−βz); `sft` adds that share of the better answer's mean
negative log-likelihood (Pang et al. 2024, arXiv:2404.19733), which keeps its probability from falling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field

from reason_engine.data.formats.rows import Preference, Row
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded, Encoder
from reason_engine.training.common.recipe import Tuned
from reason_engine.training.supervised.loop import Objective, supervise
from reason_engine.training.supervised.sft import Answers

Config = TypeVar("Config", bound=Tuned)


class DpoConfig(Tuned):
    """Pairs of answers, the better one first."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Preference,)

    beta: float = Field(0.1, gt=0, description="How strongly the reference holds")
    smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of labels taken to be wrong")
    sft: float = Field(0.0, ge=0, description="Weight of the better answer's own loss")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers in tokens."""

    chosen: Encoded
    rejected: Encoded

    @property
    def ids(self) -> list[int]:
        return self.chosen.ids + self.rejected.ids


class AgainstReference(Objective, Generic[Config]):
    """Compares the model with where it began: a frozen copy, or with `peft` the same weights without the adapter."""

    @classmethod
    def train(cls, config: Config, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        copies = int(config.peft is None)
        return supervise(config, out, tell, cls, base=config.model, copies=copies, memory=Answers)

    def __init__(self, config: Config, model: Any, tokenizer: Any) -> None:
        from reason_engine.training.common.forward import Reference

        self.model, self._config = model, config
        self._reference = Reference(model, shares=config.peft is not None)
        self._encoder = Encoder(tokenizer, config.max_length)

    def total(self, batch: Sequence[Any], body: Any) -> float:
        return len(batch)

    def logps(self, rows: Sequence[Encoded], body: Any) -> tuple[Any, Any]:
        """Log π(y|x) and log π(y|x)/π_ref(y|x) of each row, [B]."""
        from reason_engine.training.common.forward import answer_logps

        policy_B = answer_logps(body, self.model.get_output_embeddings(), rows, self._config.precision)
        return policy_B, policy_B - self._reference.logps(rows, self._config.precision)


@trainers.register("dpo")
class Preferences(AgainstReference[DpoConfig]):
    """The loss of pairs."""

    config: ClassVar[type[DpoConfig]] = DpoConfig
    summary: ClassVar[str] = "direct preference optimisation on pairs of answers"

    def encode(self, rows: Sequence[Preference]) -> list[Pair]:
        encode = self._encoder.answer
        return [Pair(encode(row.prompt, row.chosen), encode(row.prompt, row.rejected)) for row in rows]

    def loss(self, group: Sequence[Pair], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch
        from torch.nn.functional import logsigmoid

        config, count = self._config, len(group)
        rows = [pair.chosen for pair in group] + [pair.rejected for pair in group]
        policy, ratios = self.logps(rows, body)
        rewards = config.beta * ratios
        margin = rewards[:count] - rewards[count:]
        losses = -(1 - config.smoothing) * logsigmoid(margin) - config.smoothing * logsigmoid(-margin)
        if config.sft:
            lengths = torch.tensor([sum(w > 0 for w in pair.chosen.weights) for pair in group])
            losses = losses - config.sft * policy[:count] / lengths.to(policy.device)
        metrics = {
            "accuracy": float((margin > 0).sum()),
            "margin": float(margin.detach().sum()),
            "chosen": float(rewards[:count].detach().sum()),
            "rejected": float(rewards[count:].detach().sum()),
        }
        return losses.sum(), metrics
