"""Heads that score: a linear layer, or two with a ReLU between, over the states after the final norm.

Two ways to end. A whole checkpoint (`…ForSequenceClassification`, `…ForTokenClassification`, one label), its layers
trained too; or a head alone (`head.json`, `head.safetensors`) over the states of a model that stays as it is, which the
embedded engine serves beside that model at the price of one matrix. Both are read by the verifier `reward-model`.
"""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from reason_engine.engines._checkpoint import fingerprint
from reason_engine.engines._rewards import HEAD, Kind
from reason_engine.errors import SetupError
from reason_engine.training._models import save_model
from reason_engine.training._recipe import Tuned

CLASSES: dict[Kind, str] = {
    "outcome": "AutoModelForSequenceClassification",
    "process": "AutoModelForTokenClassification",
}


class Headed(Tuned):
    """`train: head` leaves the model as it is."""

    adamw_rate: float = Field(2e-5, gt=0, description="Of a head alone 1e-3 unless set")
    train: Literal["model", "head"] = "model"
    wide: int = Field(0, ge=0, description="Values between the two layers of a head alone; 0: one layer")

    @model_validator(mode="before")
    @classmethod
    def brisk(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("train") == "head" and "adamw_rate" not in values:
            return {**values, "adamw_rate": 1e-3}
        return values

    @model_validator(mode="after")
    def head_alone(self) -> Headed:
        if self.wide and self.train == "model":
            raise ValueError("wide: a whole checkpoint has a head of one layer; with two, train: head")
        if self.peft is not None and (self.train == "head" or self.peft.method in ("prompt", "adapter")):
            raise ValueError(
                "peft: a reward model takes lora, dora or ia3, merged, and only with train: model"
            )
        if self.peft is not None and not self.peft.merge:
            raise ValueError("peft.merge: a reward model is served merged")
        return self


def with_head(config: Headed, model: Any, kind: Kind, pad: int | None) -> Any:
    """The model's body under a new head `score`; of a head alone the body is frozen."""
    import torch
    import transformers
    from torch import nn

    settings = deepcopy(model.config)
    settings.num_labels, settings.pad_token_id = 1, pad
    if kind == "process":
        settings.classifier_dropout = 0.0
    try:
        with torch.device("meta"):
            made = getattr(transformers, CLASSES[kind]).from_config(settings)
        made.model = model.model
    except (ValueError, AttributeError) as error:
        raise SetupError(
            f"{config.model}: no {kind} reward model can be made of it: {str(error).splitlines()[0]}"
        ) from None
    hidden, wide = model.config.hidden_size, config.wide
    score: Any = nn.Linear(hidden, 1, bias=kind == "process" or config.train == "head")
    if wide:
        score = nn.Sequential(nn.Linear(hidden, wide), nn.ReLU(), nn.Linear(wide, 1))
    made.score = score.to(next(model.parameters()).device)
    if config.train == "head":
        made.model.requires_grad_(False)
    else:
        nn.init.normal_(made.score.weight, std=hidden**-0.5)
    return made


def saver(config: Headed, kind: Kind) -> Any:
    """What writes the result: the checkpoint, or the head alone."""
    if config.train == "model":
        return save_model

    def save(model: Any, tokenizer: Any, out: Path) -> None:
        from safetensors.torch import save_file

        del tokenizer
        out.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"score.{name}": t.detach().cpu().contiguous() for name, t in model.score.state_dict().items()
        }
        save_file(tensors, out / "head.new")
        os.replace(out / "head.new", out / "head.safetensors")
        said = {"kind": kind, "base": fingerprint(config.model)}
        (out / HEAD).write_text(json.dumps(said, indent=2) + "\n", "utf-8")

    return save
