"""Compression methods by name. Each is a frozen config and a class that makes a smaller checkpoint of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from pydantic import Field, field_validator, model_validator

from reason_engine.data.mixture import Part
from reason_engine.errors import ReasonError
from reason_engine.progress import OnProgress, silent
from reason_engine.registry import Registry
from reason_engine.training.common.config import Frozen


class Report(Frozen):
    """What is measured before and after. `report: false` measures nothing but sizes."""

    tasks: dict[str, str] | None = Field(
        None,
        description="Task, as of `reason eval`, to the strategy it is asked by; none: word-problems for a model whose "
        "profile knows tasks, else gsm8k where `data` is given",
    )
    limit: int = Field(200, ge=1, description="Problems a task, and rows of the perplexity, at most")
    max_tokens: int = Field(512, ge=1, description="Most tokens of an answer")
    seconds: float | None = Field(
        600, gt=0, description="After which nothing new is begun; the report says what was left out. none: no bound"
    )
    data: Path | None = Field(None, description="Folder of public test sets that the tasks read")
    perplexity: bool = Field(True, description="Of rows that were not calibrated on")
    speed: bool = Field(True, description="Tokens a second of both, in alternating pairs, and resident memory")
    pairs: int = Field(5, ge=1, description="Of the measurement of speed")
    threads: int | None = Field(None, ge=1)

    @field_validator("tasks")
    @classmethod
    def exist(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        from reason_engine.evals import tasks  # only where tasks are named: a third of a second
        from reason_engine.evals.spec import build, parse_specs
        from reason_engine.strategies import strategies

        for task, strategy in (value or {}).items():
            try:
                build(tasks, parse_specs([task], "task")[0])
                build(strategies, parse_specs([strategy], "strategy")[0])
            except ReasonError as error:
                raise ValueError(str(error)) from None
        return value


class CompressionConfig(Frozen):
    """Shared by all. One of `data` and `mixture` where the method calibrates; perplexity is measured on either too."""

    data: Path | None = Field(
        None, description="Rows in any format, stored traces, or plain text (.txt, .md) to calibrate on"
    )
    format: str | None = Field(None, description="The data's format, where it should not be detected")
    mixture: tuple[Part, ...] = Field((), description="Own generators instead of data, as in `reason train`")
    rows: int = Field(256, ge=1, description="Rows to calibrate on")
    length: int = Field(512, ge=16, description="Tokens of a row at most")
    seed: int = 0
    threads: int | None = Field(None, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Of calibration. auto: bf16 where the machine computes in it, else fp32"
    )
    report: Report = Field(default_factory=lambda: Report.model_validate({}))

    @field_validator("report", mode="before")
    @classmethod
    def switched(cls, value: Any) -> Any:
        if value is False:
            return {"tasks": {}, "perplexity": False, "speed": False}
        return {} if value is True else value

    @model_validator(mode="after")
    def one_source(self) -> CompressionConfig:
        if self.data is not None and self.mixture:
            raise ValueError("give either data or mixture")
        return self

    @property
    def has_text(self) -> bool:
        """Whether text to calibrate on is named at all."""
        return self.data is not None or bool(self.mixture)


@dataclass(frozen=True, slots=True)
class Served:
    """Who serves the result, and how: one short phrase each, which begins with `yes` or `no`."""

    embedded: str
    vllm_cpu: str
    vllm_gpu: str


class Method(Protocol):
    """A compressor with the class of its config: `Compressor` of the contracts, found by name.

    `check` runs before anything heavy is imported: lines for the user, or SetupError where the method cannot handle
    the model. `compress` writes config, weights and tokenizer into `out`, a folder that exists and is empty, and
    returns figures for the manifest; profile, manifest and report are added by `run`. `served` says who serves what
    this config makes.
    """

    config: ClassVar[type[CompressionConfig]]
    summary: ClassVar[str]

    def check(self, config: Any, model: Path) -> list[str]: ...
    def compress(self, config: Any, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]: ...
    def served(self, config: Any) -> Served: ...


compressors: Registry[Method] = Registry(
    "compression method",
    "reason_engine.compression",
    "reason_engine.compression.quantize",
    "reason_engine.compression.prune",
)
