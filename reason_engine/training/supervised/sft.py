"""Supervised fine-tuning, from scratch or from a checkpoint: next-token loss on the answer's tokens only.

    L = Σ_t w_t · −log π(y_t | x, y_<t) / Σ_t w_t          t over a batch's answers; of plain text, over all

Matrices learn by Muon, everything else by AdamW; with `peft` all by AdamW. Rates follow warm-up and cosine over
*tokens*, so that the schedule does not depend on the machine. In a new model the output and down projections start at
zero, hence each layer as the identity.

With `qat` every pass sees the weights as they will be quantised (`common/quantisation_aware`); what is written are the
weights themselves, in fp32, and `qat.json` with the grid. `reason compress qat` stores them on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from reason_engine.data.formats.rows import Conversation, Row, Text
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoder
from reason_engine.training.common.models import Architecture, save_model
from reason_engine.training.common.quantisation_aware import GRID, FakeQuantisation, Qat, quantised_loss
from reason_engine.training.common.recipe import Conversations
from reason_engine.training.supervised.loop import supervise


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

    kinds: ClassVar[tuple[type[Row], ...]] = (Conversation, Text)

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

    def train(self, config: SftConfig, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        if config.qat is None:
            return supervise(config, out, tell, Answers, base=config.model)
        metrics = supervise(config, out, tell, QuantisedAnswers, base=config.model, save=_save_fp32)
        (out / GRID).write_text(json.dumps(config.qat.grid(), indent=2) + "\n", "utf-8")
        return metrics


def _save_fp32(model: Any, tokenizer: Any, out: Path) -> None:
    save_model(model, tokenizer, out, "float32")  # in bf16 a weight may lie on another point of the grid
