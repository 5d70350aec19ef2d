"""Kahneman-Tversky optimisation: single answers, each liked or not, weighed as people weigh gains and losses.

    r = log π(y|x)/π_ref(y|x)          z = max(0, mean over the batch of log π(y'|x)/π_ref(y'|x)), y': another row's
    L = λ_D (1 − σ(β (r − z))) where y is liked,  λ_U (1 − σ(β (z − r))) where it is not

Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8 and section 4.2. Departures: none in the loss; y' is the next row's
answer within the batch of one optimiser step, and z is taken once a step. λ are the recipe's `liked` and `disliked`;
the paper advises λ_D n_D / (λ_U n_U) between 1 and 4/3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from reason_engine.data.formats.rows import Labelled, Row
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded, micro_batches
from reason_engine.training.common.recipe import Tuned
from reason_engine.training.supervised.dpo import AgainstReference


class KtoConfig(Tuned):
    """Answers with a label each; a file of pairs is read as two labelled answers a row."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Labelled,)

    batch: int = Field(32, ge=2, description="Examples an optimiser step; other rows' answers tell the reference point")
    beta: float = Field(0.1, gt=0, description="How strongly the reference holds")
    liked: float = Field(1.0, gt=0, description="Weight of answers that are wanted")
    disliked: float = Field(1.0, gt=0, description="Weight of answers that are not")


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer in tokens, and another row's answer to the same prompt."""

    own: Encoded
    other: Encoded
    label: bool

    @property
    def ids(self) -> list[int]:
        return self.own.ids


@trainers.register("kto")
class Prospects(AgainstReference[KtoConfig]):
    """The loss of single answers."""

    config: ClassVar[type[KtoConfig]] = KtoConfig
    summary: ClassVar[str] = "preference learning from single answers, each liked or not (KTO)"

    _baseline = 0.0

    def encode(self, rows: Sequence[Labelled]) -> list[LabelledAnswer]:
        encode, after = self._encoder.answer, [*rows[1:], rows[0]]
        return [
            LabelledAnswer(encode(row.prompt, row.completion), encode(row.prompt, other.completion), row.label)
            for row, other in zip(rows, after, strict=True)
        ]

    def total(self, batch: Sequence[LabelledAnswer], body: Any) -> float:
        """Takes z, without gradients, on the way."""
        import torch

        with torch.no_grad():
            groups = micro_batches([item.other for item in batch], self._config.pass_tokens)
            ratios = sum(float(self.logps(group, body)[1].sum()) for group in groups)
        self._baseline = max(0.0, ratios / len(batch))
        return len(batch)

    def loss(self, group: Sequence[LabelledAnswer], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch

        config = self._config
        ratios = self.logps([item.own for item in group], body)[1]
        liked = torch.tensor([item.label for item in group], device=ratios.device)
        gains = config.beta * (ratios - self._baseline)
        losses = torch.where(liked, config.liked * (1 - gains.sigmoid()), config.disliked * (1 - (-gains).sigmoid()))
        accuracy = float(((gains > 0) == liked).sum())
        return losses.sum(), {"accuracy": accuracy, "baseline": self._baseline * len(group)}
