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

A student that writes answers runs on the embedded engine in this process, given the weights of the moment. What is
drawn depends on weights, prompts and seed alone, so a run that goes on from a checkpoint draws the same again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from reason_engine.data.formats.rows import Text
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.runtime.drawn import collect
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded
from reason_engine.training.common.models import load_model, save_model
from reason_engine.training.supervised.loop import supervise
from reason_engine.training.supervised.sft import Answers, AnswersConfig
from reason_engine.types import GenerateRequest, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.adapters import Adapted


class DistillConfig(AnswersConfig):
    """A student (`model`, or a new one by `architecture`, which takes the teacher's tokenizer) and its teacher."""

    teacher: Path
    alpha: float = Field(0.9, ge=0, le=1, description="Share of the teacher's word in the loss")
    temperature: float = Field(2.0, gt=0, le=100)
    beta: float = Field(0.0, ge=0, le=1, description="0: KL(teacher ‖ student), 1: KL(student ‖ teacher)")
    on_policy: float = Field(0.0, ge=0, le=1, description="Share of rows that the student answers itself")
    max_tokens: int = Field(256, ge=1, description="Most tokens of an answer of its own")


@dataclass(frozen=True, slots=True)
class OwnAnswer(Encoded):
    """An answer of the student's."""


@trainers.register("distill")
class SoftAnswers(Answers):
    """Answers with the teacher's distributions."""

    config: ClassVar[type[DistillConfig]] = DistillConfig
    summary: ClassVar[str] = "distillation: a student learns a teacher's distributions (given answers or its own)"

    @classmethod
    def train(cls, config: DistillConfig, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        if not ModelFolder(config.teacher).is_checkpoint:
            raise ModelLoadError(f"teacher: {config.teacher}: no checkpoint folder (it has no config.json)")
        with Student(config.model, config.max_tokens, config.threads) as student:
            return supervise(
                config, out, tell, partial(cls, student=student), base=config.model, memory=Answers,
                copies=2 if config.on_policy else 1, tokenizer_from=config.teacher,
                make_batch=SoftAnswers.batch if config.on_policy else None,
            )  # fmt: skip

    def __init__(self, config: DistillConfig, model: Any, tokenizer: Any, student: Student | None = None) -> None:
        from reason_engine.training.common.forward import Reference

        super().__init__(config, model, tokenizer)
        teacher, its_tokenizer = load_model(config.teacher)
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            other = f"teacher: {config.teacher} has another tokenizer than the student"
            raise SetupError(f"{other}; soft labels need the same")
        self._teacher, self._config = Reference(teacher), config
        self._student, self._tokenizer = student, tokenizer

    def batch(self, rows: Sequence[Any], adapted: Adapted | None = None) -> list[Encoded]:
        """The items of a training batch: some answers as given, some by the student under its adapter."""
        import torch

        items = self.encode(rows)
        assert self._student is not None
        asked = sum(not isinstance(row, Text) for row in rows)  # plain text stands behind them
        chosen = (torch.rand(asked) < self._config.on_policy).tolist()
        seed = int(torch.randint(2**31, ()))
        own = [at for at in range(asked) if chosen[at] and any(items[at].weights)]
        begins = [next(i for i, weight in enumerate(items[at].weights) if weight) for at in own]
        prompts = [items[at].ids[:begin] for at, begin in zip(own, begins, strict=True)]
        drawn = self._student.answers(self.model, self._tokenizer, prompts, seed, adapted) if own else []
        for at, prompt, answer in zip(own, prompts, drawn, strict=True):
            if answer:
                weights = [0.0] * len(prompt) + [items[at].weights[len(prompt)]] * len(answer)
                items[at] = OwnAnswer(prompt + answer, weights)
        return items

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch
        from torch.utils.checkpoint import checkpoint

        from reason_engine.training.common.forward import answer_states
        from reason_engine.training.kernels.logprobs import chunks

        config, head = self._config, self.model.get_output_embeddings()
        states_ND, targets_N, weights_N, rows_N = answer_states(body, group, config.precision, head.weight.device)
        teacher_ND = self._teacher.states(group, config.precision)
        written_B = torch.tensor([isinstance(one, OwnAnswer) for one in group], device=rows_N.device)
        alpha_N = torch.where(written_B[rows_N], 1.0, config.alpha)
        parts: list[tuple[Tensor, Tensor]] = [
            checkpoint(
                self._chunk_losses, states_ND[at], teacher_ND[at], targets_N[at], alpha_N[at], use_reentrant=False
            )
            for at in chunks(len(targets_N), 2 * head.weight.shape[0])
        ]
        losses_N, agree_N = (torch.cat(column) for column in zip(*parts, strict=True))
        metrics = {"agreement": float(agree_N.float().mean()) * len(group)}
        loss = (losses_N * weights_N).sum()
        return loss, metrics | ({"own": float(written_B.sum())} if config.on_policy else {})

    def _chunk_losses(
        self, states_CD: Tensor, teacher_CD: Tensor, targets_C: Tensor, alpha_C: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The losses of some tokens, and whether student and teacher would say the same."""
        from torch.nn.functional import cross_entropy, log_softmax

        from reason_engine.training.kernels.logprobs import head_logits

        config = self._config
        own_CV = head_logits(self.model.get_output_embeddings(), states_CD, config.precision)
        teacher_CV = self._teacher.logits(teacher_CD, config.precision)
        # The tokenizers agree; the padding of the matrices may not.
        size, temperature = min(own_CV.shape[1], teacher_CV.shape[1]), config.temperature
        student, teacher = (log_softmax(x[:, :size] / temperature, -1) for x in (own_CV, teacher_CV))
        soft_C = divergence(teacher, student, config.beta) * temperature**2
        hard_C = cross_entropy(own_CV, targets_C, reduction="none")
        return alpha_C * soft_C + (1 - alpha_C) * hard_C, own_CV.argmax(-1) == teacher_CV.argmax(-1)


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


PADDING_BIAS = -100.0
"""Of the logits of rows that only pad a matrix: they stand for no token, and a teacher may not have them."""


class Student:
    """Opened and closed with `with`; its engine starts with the first answers."""

    def __init__(self, folder: Path | None, max_tokens: int, threads: int | None) -> None:
        """`folder`: a checkpoint of the student's shape; none where the student is new."""
        self._folder, self._max_tokens, self._threads = folder, max_tokens, threads or 0
        self._runner, self._engine, self._scratch = asyncio.Runner(), None, ExitStack()
        self._padding: tuple[tuple[int, float], ...] = ()
        self._adapter_folder = Path()

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._engine is not None:
            self._runner.run(self._engine.close())
        self._runner.close()
        self._scratch.close()

    def answers(
        self, model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], seed: int, adapted: Adapted | None = None
    ) -> list[list[int]]:
        """One answer to each prompt, in tokens, at temperature 1; its end mark is a part of it. A prompt that leaves no
        room gets none."""
        if self._engine is None:
            self._engine = self._start(model, tokenizer)
            self._padding = tuple((token, PADDING_BIAS) for token in range(len(tokenizer), model.config.vocab_size))
            self._adapter_folder = self._scratch_folder("adapter") if adapted else Path()
        return self._runner.run(self._answer_all(self._engine, model, adapted, prompts, seed))

    def _start(self, model: Any, tokenizer: Any) -> Embedded:
        folder = self._folder
        if folder is None:
            folder = self._scratch_folder("student")
            save_model(model, tokenizer, folder)
        engine = Embedded(folder, inline=True, dtype="float32", threads=self._threads)
        self._runner.run(engine.start())
        return engine

    def _scratch_folder(self, name: str) -> Path:
        return Path(self._scratch.enter_context(tempfile.TemporaryDirectory(prefix=f"reason-{name}-")))

    async def _answer_all(
        self, engine: Embedded, model: Any, adapted: Adapted | None, prompts: Sequence[Sequence[int]], seed: int
    ) -> list[list[int]]:
        from reason_engine.training.common.adapters import hand_over

        named = await hand_over(engine, model, adapted, self._adapter_folder)

        async def one(number: int) -> list[int]:
            prompt = tuple(prompts[number])
            room = min(self._max_tokens, engine.info.context - len(prompt))
            if room < 1:
                return []
            place = (seed + number) % 2**31
            sampling = Sampling(max_tokens=room, temperature=1.0, seed=place, logit_bias=self._padding)
            asked = GenerateRequest(f"own-{number}", prompt, 1, sampling, adapter=named)
            (answer,) = await collect(engine.generate(asked))
            return answer.ids

        async with asyncio.TaskGroup() as together:
            running = [together.create_task(one(number)) for number in range(len(prompts))]
        return [task.result() for task in running]
