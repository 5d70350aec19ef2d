"""The keys of a recipe: those that all methods share, and those of every supervised method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from reason_engine.data.formats.rows import Conversation, Row, Text
from reason_engine.data.mixture import Part
from reason_engine.errors import MissingExtra
from reason_engine.training.common.config import Frozen, Patterns

MicroTokens = Annotated[
    Annotated[int, Field(ge=16)] | Literal["auto"],
    Field(description="Tokens a forward pass; auto: as many as the memory takes and the machine is faster by"),
]
EXTRA = "pip install 'reason-engine[train]'"


class Peft(Frozen):
    """A few new parameters beside frozen weights. `peft: lora` is short for `peft: {method: lora}`."""

    method: Literal["lora", "dora", "ia3", "prompt", "adapter"]
    rank: int = Field(16, ge=1, le=1024, description="Of lora and dora")
    alpha: int | None = Field(None, ge=1, description="Scale of lora and dora; none: twice the rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of lora and dora")
    targets: tuple[str, ...] = Field((), description="Ends of the names of the matrices; none: all of a layer")
    length: int = Field(16, ge=1, le=1024, description="Learned tokens before each prompt")
    width: int = Field(32, ge=1, description="Of the bottleneck of `adapter`")
    merge: bool = Field(True, description="Write the merged checkpoint as well, where the method can be merged")

    @property
    def can_merge(self) -> bool:
        return self.method in ("lora", "dora", "ia3")

    def check_installed(self) -> None:
        """Raises MissingExtra where the method is PEFT's and PEFT is not there."""
        if self.method != "adapter" and find_spec("peft") is None:
            raise MissingExtra(f"peft, which `peft: {self.method}` needs,", EXTRA)


class Recipe(Frozen):
    """The keys that every method has."""

    out: Path
    format: str | None = Field(None, description="The data's format, where it should not be detected")
    weight_decay: float = Field(0.0, ge=0)
    compile: bool = False
    threads: int | None = Field(None, ge=1)
    seed: int = 0
    micro_tokens: MicroTokens = "auto"
    checkpointing: bool = Field(
        False, description="Keep each layer's input alone and work out the rest again: a third slower, far less memory"
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 on a GPU and on CPUs that compute in it, else fp32"
    )
    peft: Peft | None = Field(None, description="A few new parameters beside frozen weights; none: all are trained")
    tensorboard: bool = Field(False, description="Write events for TensorBoard into `out`/tensorboard")
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="Where the log's figures go besides: tensorboard, wandb, mlflow"
    )
    unservable: bool = Field(False, description="Train a model that vLLM cannot serve all the same")

    @property
    def pass_tokens(self) -> int:
        """`micro_tokens` where nothing is known of the memory."""
        return 2048 if self.micro_tokens == "auto" else self.micro_tokens

    @field_validator("peft", mode="before")
    @classmethod
    def expand_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def check_compiled(self) -> Recipe:
        if self.compile and self.peft is not None:
            raise ValueError("compile is for all weights; with peft set compile: false")
        if self.compile and self.checkpointing:
            raise ValueError("checkpointing: compiled layers keep what they need; set compile: false")
        return self


class Supervised(Recipe):
    """Shared by all; a subclass says where rows come from."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Conversation, Text)
    tokens: int = Field(0, ge=0, description="Tokens to train on, prompts included, padding not")
    epochs: float = Field(0, ge=0, description="Instead of tokens: how often each row of the data is seen")
    held_out: Path | None = Field(None, description="Rows by which the result is judged at the end")
    batch: int = Field(32, ge=1, description="Examples an optimiser step")
    max_length: int = Field(1024, ge=16)
    optimiser: Literal["muon", "adamw"] = "adamw"
    muon_rate: float = Field(0.02, gt=0)
    adamw_rate: float = Field(1e-4, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    final: float = Field(0.01, ge=0, le=1, description="Share of the rate left at the end")
    clip: float = Field(1.0, gt=0)
    freeze: Patterns = Field((), description="Regular expressions over parameter names that stay as they are")
    ewc: float = Field(0.0, ge=0, description="Strength of elastic weight consolidation")
    old: Path | None = Field(None, description="Rows of what must not be forgotten (ewc)")
    fisher_rows: int = Field(256, ge=1, description="Rows of `old` by which weights' importance is judged")
    save_every: int = Field(1_000_000, ge=1, description="Tokens between checkpoints")
    keep_every: int | None = Field(None, ge=1, description="Tokens between checkpoints that are kept as models")
    log_every: int = Field(20, ge=1, description="Steps between log lines")

    @model_validator(mode="after")
    def check_combinations(self) -> Supervised:
        if (self.tokens > 0) == (self.epochs > 0):
            raise ValueError("give either tokens or epochs, above 0")
        if (self.ewc > 0) != (self.old is not None):
            raise ValueError("ewc and old go together: old holds rows of what must not be forgotten")
        return self

    def rate_at(self, tokens: int) -> float:
        """Share of the full learning rate after `tokens`: linear warm-up, then cosine down to `final`."""
        done = min(1.0, tokens / self.tokens)
        if done < self.warmup:
            return max(done, 1e-3) / self.warmup
        turn = (done - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * turn))


class Tuned(Supervised):
    """A checkpoint folder, taught by a file of rows."""

    model: Path
    data: Path


class Conversations(Supervised):
    """One of `data` (a file in any format of conversations, or plain text) and `mixture` (own generators)."""

    model: Path | None = None
    data: Path | None = None
    mixture: tuple[Part, ...] = ()

    @model_validator(mode="after")
    def one_source(self) -> Conversations:
        check_one_source(self.data, self.mixture)
        if self.mixture and self.epochs:
            raise ValueError("epochs: a mixture has no end; give tokens")
        return self


def check_one_source(data: Path | None, mixture: Sequence[Part]) -> None:
    """Raises ValueError unless exactly one of the two is given."""
    if (data is None) == (not mixture):
        raise ValueError("give either data or mixture")
