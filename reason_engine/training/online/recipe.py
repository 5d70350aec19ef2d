"""The keys of a recipe that learns from the model's own samples: problems, rewards, sampling, steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, Field, ValidationError, model_validator

from reason_engine.data.mixture import Part
from reason_engine.errors import RequestError
from reason_engine.training.common.config import Frozen, Patterns
from reason_engine.training.common.recipe import Recipe, check_one_source
from reason_engine.verifiers import verifiers

Clip = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0)]]
"""How far a ratio may fall and rise."""


class Stage(Frozen):
    """`params` by family. `steps`: the stage ends after so many of them at the latest."""

    params: Mapping[str, Mapping[str, Any]]
    until: float = Field(0.8, allow_inf_nan=False, description="Mean reward at which the next stage begins")
    steps: int | None = Field(None, ge=1)

    def mixture(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The mixture under this stage's params. Raises ValueError naming a family or param at fault."""
        families = {part.family for part in parts}
        if unknown := set(self.params) - families:
            raise ValueError(f"params: the mixture has no family {sorted(unknown)[0]!r}")
        own = [{**part.params, **self.params.get(part.family, {})} for part in parts]
        return tuple(Part(family=a.family, share=a.share, params=b) for a, b in zip(parts, own, strict=True))


class Reward(Frozen):
    """One verifier. `families` restricts it to tasks of these families of the mixture (none: all)."""

    verifier: str
    params: Mapping[str, Any] = {}
    weight: float = Field(1.0, allow_inf_nan=False, description="Below 0: a penalty")
    last: float | None = Field(None, allow_inf_nan=False, description="Weight at the end of the run")
    process: bool = Field(False, description="Judge steps, not the outcome")
    families: tuple[str, ...] = ()

    @model_validator(mode="after")
    def check_verifier(self) -> Reward:
        try:
            kind = verifiers.get(self.verifier, param="verifier")
            cast(type[BaseModel], kind).model_validate(dict(self.params))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("params", *first["loc"]))
            raise ValueError(f"{self.verifier}: {where}: {first['msg']}") from None
        except RequestError as error:
            raise ValueError(error.message) from None
        return self

    def weight_at(self, done: float) -> float:
        """Its weight when this share of the run is done."""
        return self.weight if self.last is None else self.weight + (self.last - self.weight) * done


class Online(Recipe):
    """One of `data` (a file of prompts with answers) and `mixture` (this package's generators)."""

    trained: ClassVar[int] = 1
    """Models that learn."""

    model: Path = Field(description="The checkpoint folder that is trained; it is the reference too")
    data: Path | None = None
    mixture: tuple[Part, ...] = ()
    curriculum: tuple[Stage, ...] = Field((), description="Stages before the mixture as it stands")
    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=16)
    judge: Path | None = Field(None, description="A checkpoint folder whose model and heads judge")
    reward_models: dict[str, str] = Field(
        {}, description="Reward models by name, for the judging engine: folders, or URLs of pooling endpoints"
    )
    allow_code: bool = Field(
        False, description="Let the verifier `code` run what samples say, in the sandbox that serving uses"
    )
    steps: int = Field(ge=1)
    prompts: int = Field(16, ge=1, description="Problems a step")
    samples: int = Field(8, ge=1, description="Samples of each problem")
    max_tokens: int = Field(256, ge=1, description="Most tokens of a sample")
    temperature: float = Field(1.0, ge=0.1, le=4)
    updates: int = Field(1, ge=1, description="Passes over the samples of a step")
    minibatches: int = Field(1, ge=1, description="Optimiser steps a pass")
    mask_truncated: bool = Field(False, description="Samples cut at max_tokens teach nothing")
    refill: int = Field(
        0, ge=0, description="Times to draw other problems in place of those whose samples are all alike"
    )
    rate: float = Field(1e-5, gt=0)
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up")
    final: float = Field(1.0, ge=0, le=1, description="Share of the rate left at the end, falling linearly")
    clip_norm: float = Field(1.0, gt=0)
    freeze: Patterns = Field((), description="Regular expressions over names of parameters that stay")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "fp32", description="Of the learning; auto: bf16 where the machine computes in it"
    )
    save_every: int = Field(20, ge=1, description="Steps between checkpoints")
    keep_every: int | None = Field(None, ge=1, description="Steps between checkpoints that are kept as models")
    log_every: int = Field(1, ge=1, description="Steps between log lines")
    keep_samples: int = Field(4, ge=0, description="Samples of a step that are kept to be read")

    @model_validator(mode="after")
    def check_parts(self) -> Online:
        check_one_source(self.data, self.mixture)
        if self.peft is not None and self.peft.dropout:
            raise ValueError("peft.dropout: what is sampled is to be what is measured; leave it out")
        if self.curriculum and not self.mixture:
            raise ValueError("curriculum: its stages change families of a mixture")
        for stage in self.curriculum:
            stage.mixture(self.mixture)
        families = {part.family for part in self.mixture}
        for reward in self.rewards:
            if strange := set(reward.families) - families:
                raise ValueError(f"rewards: the mixture has no family {sorted(strange)[0]!r}")
        counts = Counter(reward.verifier for reward in self.rewards)
        twice = [name for name, count in counts.items() if count > 1]
        if twice and not all(reward.families for reward in self.rewards if reward.verifier in twice):
            raise ValueError(f"rewards: {twice[0]!r} stands twice; give each its families")
        return self

    @property
    def has_reference(self) -> bool:
        """Whether log-probabilities of where it began are asked for."""
        return True

    @property
    def needs_logprobs(self) -> bool:
        """Whether samples carry the engine's log-probabilities, which judges of steps read."""
        return any(reward.process or reward.verifier == "process-rules" for reward in self.rewards)

    def rate_at(self, step: int) -> float:
        """Share of the full rate at a step: linear warm-up, then a line down to `final` at the last step."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = self.steps - 1 - self.warmup
        return 1.0 if left <= 0 else 1 - (1 - self.final) * (step - self.warmup) / left
