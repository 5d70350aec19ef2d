"""Supervised fine-tuning, from scratch or from a checkpoint: next-token loss on the answer's tokens only.

    L = Σ_t w_t · −log π(y_t | x, y_<t) / Σ_t w_t          t over a batch's answers; of plain text, over all

Matrices learn by Muon, everything else by AdamW; with `peft` all by AdamW. Rates follow warm-up and cosine over
*tokens*, so that the schedule does not depend on the machine. In a new model the output and down projections start at
zero, hence each layer as the identity.

With `qat` every forward pass sees the weights as they will be stored:

    w' = s · clamp(round(w / s), lo, hi),   ∂L/∂w := ∂L/∂w'     straight-through, Bengio et al. 2013, arXiv:1308.3432

4 bits: s for each `group` inputs of an output, s = 2 max|w| / 15 in fp16, −8 … 7, as GPTQ files hold them. 8 bits: s
for each output, max|w| / 127, and the activations likewise for each token (W8A8). Only the seven matrices of a decoder
layer; the trained weights themselves stay in full precision.

`contrastive`: the answer's mean state z in the quantised pass shall be nearer to the full-precision pass of the same
row than to those of the other rows of its pass:

    L_c = − log exp(cos(z_b, z*_b) / τ) / Σ_k exp(cos(z_b, z*_k) / τ)

After QuantGPT (Tao et al. 2022, arXiv:2203.10705, section 3.2), whose pairs are tokens and whose full-precision model
is a frozen teacher. Departures: pairs are rows; the full-precision pass is of the same weights, without gradient.

What is written are the weights themselves, in fp32, and `qat.json` with the grid. `reason compress qat` stores them on
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.config import Frozen
from reason_engine.training.common.encode import Encoder
from reason_engine.training.common.models import Architecture, save_model
from reason_engine.training.common.recipe import Conversations
from reason_engine.training.supervised.loop import supervise

GRID = "qat.json"
"""Beside weights that were trained under quantisation: the grid that they are for."""
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LEAST, LEAST_HALF = 1e-12, 6.0e-8
"""Of a scale; in fp16 the least that is not zero."""


class Qat(Frozen):
    """The grid and the contrastive term. `qat: 4` is short for `qat: {bits: 4}`."""

    bits: Literal[4, 8] = 4
    group: Literal[32, 64, 128] = Field(default=128, description="Inputs that share a scale (4 bits)")
    contrastive: float = Field(default=0.0, ge=0, description="Weight of the contrastive term")
    warmth: float = Field(default=0.1, gt=0, description="τ of the contrastive term")

    @model_validator(mode="before")
    @classmethod
    def expand_bits(cls, values: Any) -> Any:
        return {"bits": values} if isinstance(values, int) else values

    @model_validator(mode="after")
    def check_group(self) -> Qat:
        if self.bits == 8 and "group" in self.model_fields_set:
            raise ValueError("group: is for 4 bits; 8 bits have one scale an output")
        return self

    def grid(self) -> dict[str, int]:
        """What the weights are for, without how they were trained."""
        return {"bits": self.bits} | ({"group": self.group} if self.bits == 4 else {})


class AnswersConfig(Conversations):
    """One of `model` (a checkpoint folder) and `architecture` (a new one); one of `data` and `mixture`."""

    architecture: Architecture | None = None
    batch: int = Field(160, ge=1, description="Examples an optimiser step")
    optimiser: str = Field("muon", pattern="^(muon|adamw)$")
    adamw_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def default_optimiser(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("peft") and "optimiser" not in values:
            return {**values, "optimiser": "adamw"}
        return values

    @model_validator(mode="after")
    def check_model(self) -> AnswersConfig:
        if (self.model is None) == (self.architecture is None):
            raise ValueError("give either model or architecture")
        if self.peft is not None and self.model is None:
            raise ValueError("peft adapts a model: give model instead of architecture")
        return self


class SftConfig(AnswersConfig):
    """Supervised fine-tuning."""

    qat: Qat | None = None

    @model_validator(mode="after")
    def check_all_weights(self) -> SftConfig:
        if self.qat is not None and (self.peft is not None or self.compile):
            raise ValueError("qat: quantises all weights in each pass: leave peft out, and compile false")
        return self


class Answers:
    """The loss of answers, of plain text as a whole."""

    def __init__(self, config: Any, model: Any, tokenizer: Any) -> None:
        self.model, self._precision = model, config.precision
        self.encoder = Encoder(tokenizer, config.max_length)

    def encode(self, rows: Sequence[Any]) -> list[Any]:
        return self.encoder.encode(rows)

    def total(self, batch: Sequence[Any], body: Any) -> float:
        total = sum(sum(one.weights) for one in batch)
        if not total:
            raise SetupError("the rows of a batch have no answer with a weight above 0")
        return total

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        from reason_engine.training.common.forward import answer_loss

        return answer_loss(body, self.model.get_output_embeddings(), group, self._precision), {}


class QuantisedAnswers(Answers):
    """The loss of answers under the weights as they will be stored."""

    def __init__(self, config: SftConfig, model: Any, tokenizer: Any) -> None:
        assert config.qat is not None
        super().__init__(config, model, tokenizer)
        self._qat, self._quantisation = config.qat, FakeQuantisation(model, config.qat)

    def loss(self, group: Sequence[Any], body: Any) -> tuple[Any, Mapping[str, float]]:
        head = self.model.get_output_embeddings()
        return quantised_loss(body, head, group, self._precision, self._quantisation, self._qat)


@trainers.register("sft")
class Sft:
    """Supervised fine-tuning on conversations."""

    config: ClassVar[type[SftConfig]] = SftConfig
    summary: ClassVar[str] = "supervised fine-tuning, from scratch or from a checkpoint"

    @classmethod
    def train(cls, config: SftConfig, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        if config.qat is None:
            return supervise(config, out, tell, Answers, base=config.model)
        metrics = supervise(config, out, tell, QuantisedAnswers, base=config.model, save=_save_fp32)
        ModelFolder(out).write_json(GRID, config.qat.grid())
        return metrics


def _save_fp32(model: Any, tokenizer: Any, out: Path) -> None:
    save_model(model, tokenizer, out, "float32")  # in bf16 a weight may lie on another point of the grid


def codes4(weight_OI: Any, group: int) -> tuple[Any, Any]:
    """Codes 0 … 15, whose zero is 8, [O, I] and fp16 scales [O, I / group]."""
    import torch

    weight_OGI = weight_OI.detach().float().reshape(weight_OI.shape[0], -1, group)
    scale_OG = (2 * weight_OGI.abs().amax(-1) / 15).clamp_min(LEAST_HALF).half()
    code_OGI = torch.round(weight_OGI / scale_OG.float()[..., None]).clamp(-8, 7) + 8
    return code_OGI.reshape(weight_OI.shape).to(torch.uint8), scale_OG


def plain4(code_OI: Any, scale_OG: Any) -> Any:
    """(code − 8) · s in fp32, [O, I]."""
    code_OGI = code_OI.float().reshape(*scale_OG.shape, -1) - 8
    return (code_OGI * scale_OG.float()[..., None]).reshape(code_OI.shape)


def rounded8(values: Any) -> Any:
    """Each row of the last dimension on its own 8-bit grid."""
    import torch

    values = values.detach().float()
    scale = (values.abs().amax(-1, keepdim=True) / 127).clamp_min(LEAST)
    return torch.round(values / scale).clamp(-127, 127) * scale


def stored_values(weight_OI: Any, qat: Qat) -> Any:
    """The weights as they will be stored, in fp32, [O, I]."""
    return rounded8(weight_OI) if qat.bits == 8 else plain4(*codes4(weight_OI, qat.group))


def fake_quantised(weight_OI: Any, qat: Qat, stored_OI: Any = None) -> Any:
    """The weights as they will be stored, for the forward pass, with the gradient of the plain ones. `stored_OI`: where
    it is known already."""
    import torch

    class StraightThrough(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, weight_OI: Any, stored_OI: Any) -> Any:
            return stored_OI.view_as(stored_OI)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            return gradients[0].float(), None

    return StraightThrough.apply(weight_OI, stored_values(weight_OI, qat) if stored_OI is None else stored_OI)


class FakeQuantisation:
    """The seven matrices of every layer of a model, quantised in each forward pass unless switched off. A matrix is put
    on its grid once for all passes of an optimiser step, in the precision that is multiplied in."""

    def __init__(self, model: Any, qat: Qat) -> None:
        self.on = True
        found = [(name, one) for name, one in model.named_modules() if name.rpartition(".")[2] in MATRICES]
        for name, linear in found:
            if qat.bits == 4 and linear.in_features % qat.group:
                raise SetupError(f"qat.group: {name} has {linear.in_features} inputs, no multiple of {qat.group}")
            linear.forward = self._pass(linear, qat)
        if not found:
            raise SetupError("qat: the model has none of the matrices that are quantised")

    @contextmanager
    def off(self) -> Iterator[None]:
        """Full precision within the block."""
        self.on = False
        try:
            yield
        finally:
            self.on = True

    def _pass(self, linear: Any, qat: Qat) -> Any:
        import torch
        from torch.nn.functional import linear as multiply

        seen, kept = None, None

        def forward(inputs: Any) -> Any:
            nonlocal seen, kept
            if not self.on:
                return multiply(inputs, linear.weight, linear.bias)
            if qat.bits == 8:
                inputs = inputs + (rounded8(inputs).to(inputs.dtype) - inputs).detach()
            weight, half = linear.weight, torch.is_autocast_enabled(linear.weight.device.type)
            now = weight._version, weight.data_ptr(), half  # an optimiser's step counts as a version
            if kept is None or now != seen:
                kept = stored_values(weight, qat)
                kept, seen = kept.to(torch.bfloat16) if half else kept, now
            return multiply(inputs, fake_quantised(weight, qat, kept), linear.bias)

        return forward


def contrastive_loss(states_ND: Any, plain_ND: Any, rows_N: Any, rows: int, temperature: float) -> Any:
    """Mean over the rows of L_c."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    def pooled(each_ND: Any) -> Any:
        sums_BD = torch.zeros(rows, each_ND.shape[1], device=each_ND.device)
        return normalize(sums_BD.index_add(0, rows_N, each_ND.float()), dim=1)  # a mean, but for its length

    similarity_BB = pooled(states_ND) @ pooled(plain_ND).T / temperature
    return cross_entropy(similarity_BB, torch.arange(rows, device=similarity_BB.device))


def quantised_loss(
    body: Any, head: Any, group: Sequence[Any], precision: str, quantisation: FakeQuantisation, qat: Qat
) -> tuple[Any, Mapping[str, float]]:
    """Σ −w log p in the quantised pass, plus the contrastive term for each unit of w."""
    import torch

    from reason_engine.training.common.forward import answer_states
    from reason_engine.training.kernels.logprobs import token_logprobs

    states_ND, targets_N, weights_N, rows_N = answer_states(body, group, precision, head.weight.device)
    loss = -(token_logprobs(head, states_ND, targets_N, precision)[0] * weights_N).sum()
    if not qat.contrastive or len(group) < 2:
        return loss, {}
    with torch.no_grad(), quantisation.off():
        plain_ND = answer_states(body, group, precision, head.weight.device)[0]
    contrast = contrastive_loss(states_ND, plain_ND, rows_N, len(group), qat.warmth)
    return loss + qat.contrastive * contrast * weights_N.sum(), {"contrast": contrast.item() * len(group)}
