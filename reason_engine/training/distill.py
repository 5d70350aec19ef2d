"""Distillation with soft labels: the student learns the teacher's distribution at each token of an answer.

    L = α T² D(p_T, q_T) + (1 − α) · −log q(y_t)          p_T, q_T: teacher's and student's softmax at temperature T

Hinton et al. 2015, arXiv:1503.02531, section 2. The mean is over the answers' tokens, each with its row's weight.

`on_policy` is the share of rows whose answers the student writes itself, with its weights of the moment, instead of
learning the given one: it is corrected where it really goes (Agarwal et al. 2023, GKD, arXiv:2306.13649, algorithm 1;
on-policy distillation is the share 1). There is no right token in such an answer, so α counts as 1 there. No gradient
goes through the drawing. The divergence is theirs too (eq. 1): with m = β p + (1 − β) q

    D = KL(p ‖ q) for β = 0,  KL(q ‖ p) for β = 1,  else  β KL(p ‖ m) + (1 − β) KL(q ‖ m)

Departures: T also applies to D, and T² with it; an own answer has its row's prompt, one draw, temperature 1. Plain text
has no prompt and is learned as given. Teacher and student share one tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from reason_engine.data.rows import Text
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training import trainers
from reason_engine.training._encode import Encoded
from reason_engine.training._loop import supervise
from reason_engine.training._student import Student
from reason_engine.training.callbacks import Tell, silent
from reason_engine.training.sft import Answers, AnswersConfig


class DistillConfig(AnswersConfig):
    """A student (`model`, or a new one by `architecture`, which takes the teacher's tokenizer) and its teacher."""

    teacher: Path
    alpha: float = Field(0.9, ge=0, le=1, description="Share of the teacher's word in the loss")
    temperature: float = Field(2.0, gt=0, le=100)
    beta: float = Field(0.0, ge=0, le=1, description="0: KL(teacher ‖ student), 1: KL(student ‖ teacher)")
    on_policy: float = Field(0.0, ge=0, le=1, description="Share of rows that the student answers itself")
    max_tokens: int = Field(256, ge=1, description="Most tokens of an answer of its own")

    @model_validator(mode="after")
    def own_weights(self) -> DistillConfig:
        if self.on_policy and self.peft is not None:
            raise ValueError(
                "on_policy: a student with peft cannot write answers while it learns; leave one out"
            )
        return self


@dataclass(frozen=True, slots=True)
class Own(Encoded):
    """An answer of the student's."""


class SoftAnswers(Answers):
    """Answers with the teacher's distributions."""

    def __init__(
        self, config: DistillConfig, model: Any, tokenizer: Any, student: Student | None = None
    ) -> None:
        from reason_engine.training._forward import Reference
        from reason_engine.training._models import load_model

        super().__init__(config, model, tokenizer)
        teacher, spoken = load_model(config.teacher)
        if spoken.get_vocab() != tokenizer.get_vocab():
            raise SetupError(
                f"teacher: {config.teacher} has another tokenizer than the student; soft labels need the same"
            )
        self._teacher, self._config = Reference(teacher), config
        self._student, self._tokenizer = student, tokenizer

    def batch(self, rows: Sequence[Any]) -> list[Encoded]:
        """The items of a training batch: some answers as given, some by the student."""
        import torch

        items = self.encode(rows)
        assert self._student is not None
        asked = sum(not isinstance(row, Text) for row in rows)  # plain text stands behind them
        chosen = (torch.rand(asked) < self._config.on_policy).tolist()
        seed = int(torch.randint(2**31, ()))
        own = [at for at in range(asked) if chosen[at] and any(items[at].weights)]
        begins = [next(i for i, weight in enumerate(items[at].weights) if weight) for at in own]
        prompts = [items[at].ids[:begin] for at, begin in zip(own, begins, strict=True)]
        drawn = self._student.answers(self.model, self._tokenizer, prompts, seed) if own else []
        for at, begin, answer in zip(own, begins, drawn, strict=True):
            if answer:
                weights = [0.0] * begin + [items[at].weights[begin]] * len(answer)
                items[at] = Own(items[at].ids[:begin] + answer, weights)
        return items

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch
        from torch.nn.functional import cross_entropy, log_softmax

        from reason_engine.training._forward import answer_logits

        config = self._config
        own_NV, targets_N, weights_N, rows_N = answer_logits(
            body, self.model.get_output_embeddings(), group, config.precision
        )
        said_NV = self._teacher.logits(group, config.precision)
        size = min(
            own_NV.shape[1], said_NV.shape[1]
        )  # the tokenizers agree; the padding of the matrices may not
        warmth = config.temperature
        student, teacher = (log_softmax(x[:, :size] / warmth, -1) for x in (own_NV, said_NV))
        soft_N = divergence(teacher, student, config.beta) * warmth**2
        hard_N = cross_entropy(own_NV, targets_N, reduction="none")
        written_B = torch.tensor([isinstance(one, Own) for one in group], device=rows_N.device)
        alpha_N = torch.where(written_B[rows_N], 1.0, config.alpha)
        losses_N = (alpha_N * soft_N + (1 - alpha_N) * hard_N) * weights_N
        agree = (own_NV.argmax(-1) == said_NV.argmax(-1)).float().mean()
        told = {"agreement": float(agree) * len(group)}
        return losses_N.sum(), told | ({"own": float(written_B.sum())} if config.on_policy else {})


def divergence(teacher_NV: Any, student_NV: Any, beta: float) -> Any:
    """D of log-probabilities, [N]."""
    import torch
    from torch.nn.functional import kl_div

    kl = partial(kl_div, reduction="none", log_target=True)  # kl(q, p) is KL(p ‖ q) before the sum
    if beta == 0:
        return kl(student_NV, teacher_NV).sum(-1)
    if beta == 1:
        return kl(teacher_NV, student_NV).sum(-1)
    share = torch.tensor(beta, device=student_NV.device)
    both_NV = torch.logaddexp(teacher_NV + share.log(), student_NV + (1 - share).log())
    return beta * kl(both_NV, teacher_NV).sum(-1) + (1 - beta) * kl(both_NV, student_NV).sum(-1)


@trainers.register("distill")
class Distill:
    """Soft labels of a teacher on given answers and on the student's own."""

    config: ClassVar[type[DistillConfig]] = DistillConfig
    summary: ClassVar[str] = (
        "distillation: a student learns a teacher's distributions (given answers or its own)"
    )

    def train(self, config: DistillConfig, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Train until `config.tokens`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        if not (config.teacher / "config.json").is_file():
            raise ModelLoadError(f"teacher: {config.teacher}: no checkpoint folder (it has no config.json)")
        with Student(config.model, config.max_tokens, config.threads) as student:
            return supervise(
                config,
                out,
                tell,
                partial(SoftAnswers, student=student),
                base=config.model,
                copies=2 if config.on_policy else 1,
                memory=Answers,
                spoken=config.teacher,
                batched=SoftAnswers.batch if config.on_policy else None,
            )
