"""Distillation with soft labels: the student learns the teacher's distribution at each token of given answers.

    L = α T² KL(p_T ‖ q_T) + (1 − α) · −log q(y_t)          p_T, q_T: teacher's and student's softmax at temperature T

Hinton et al. 2015, arXiv:1503.02531, section 2. Offline: the answers are given, not the student's.
The mean is over the answers' tokens, each with its row's weight. Teacher and student share one tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training._loop import supervise
from reason_engine.training.callbacks import Tell, silent
from reason_engine.training.sft import Answers, SftConfig


class DistillConfig(SftConfig):
    """A student (`model`, or a new one by `architecture`, which takes the teacher's tokenizer) and its teacher."""

    teacher: Path
    alpha: float = Field(0.9, ge=0, le=1, description="Share of the teacher's word in the loss")
    temperature: float = Field(2.0, gt=0, le=100)


class SoftAnswers(Answers):
    """Answers with the teacher's distributions."""

    def __init__(self, config: DistillConfig, model: Any, tokenizer: Any) -> None:
        from reason_engine.training._forward import Reference
        from reason_engine.training._models import load_model

        super().__init__(config, model, tokenizer)
        teacher, spoken = load_model(config.teacher)
        if spoken.get_vocab() != tokenizer.get_vocab():
            raise SetupError(
                f"teacher: {config.teacher} has another tokenizer than the student; soft labels need the same"
            )
        self._teacher, self._config = Reference(teacher), config

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        from reason_engine.training._forward import answer_logits

        config = self._config
        own_NV, targets_N, weights_N, _ = answer_logits(
            body, self.model.get_output_embeddings(), group, config.precision
        )
        said_NV = self._teacher.logits(group, config.precision)
        size = min(
            own_NV.shape[1], said_NV.shape[1]
        )  # the tokenizers agree; the padding of the matrices may not
        warmth = config.temperature
        student, teacher = (log_softmax(x[:, :size] / warmth, -1) for x in (own_NV, said_NV))
        soft_N = kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * warmth**2
        hard_N = cross_entropy(own_NV, targets_N, reduction="none")
        losses_N = (config.alpha * soft_N + (1 - config.alpha) * hard_N) * weights_N
        agree = (own_NV.argmax(-1) == said_NV.argmax(-1)).float().mean()
        return losses_N.sum(), {"agreement": float(agree) * len(group)}


@trainers.register("distill")
class Distill:
    """Soft labels of a teacher on given answers."""

    config: ClassVar[type[DistillConfig]] = DistillConfig
    summary: ClassVar[str] = "distillation: a student learns a teacher's distributions (offline soft labels)"

    def train(self, config: DistillConfig, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Train until `config.tokens`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        return supervise(
            config,
            out,
            tell,
            SoftAnswers,
            base=config.model,
            copies=1,
            memory=Answers,
            spoken=config.teacher,
        )
