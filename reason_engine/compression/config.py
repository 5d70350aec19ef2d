"""What every compression method may be told: text to calibrate on and what the report at the end measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from reason_engine.data.mixture import Part
from reason_engine.errors import ReasonError
from reason_engine.training.common.config import Frozen

TASKS = {"word-problems": "chain-of-thought:temperature=0"}


class Report(Frozen):
    """What is measured before and after. `report: false` measures nothing but sizes."""

    tasks: dict[str, str] = Field(
        TASKS, description="Task, as of `reason eval`, to the strategy it is asked by"
    )
    limit: int = Field(200, ge=1, description="Problems a task")
    data: Path | None = Field(None, description="Folder of public test sets that the tasks read")
    perplexity: bool = Field(True, description="Of rows that were not calibrated on")
    speed: bool = Field(
        True, description="Tokens a second of both, in alternating pairs, and resident memory"
    )
    pairs: int = Field(5, ge=1, description="Of the measurement of speed")
    threads: int | None = Field(None, ge=1)

    @field_validator("tasks")
    @classmethod
    def exist(cls, value: dict[str, str]) -> dict[str, str]:
        from reason_engine.evals import tasks  # only where tasks are named: a third of a second
        from reason_engine.evals.spec import build, parse_specs
        from reason_engine.strategies import strategies

        for task, strategy in value.items():
            try:
                build(tasks, parse_specs([task], "task")[0])
                build(strategies, parse_specs([strategy], "strategy")[0])
            except ReasonError as error:
                raise ValueError(str(error)) from None
        return value


class Compression(Frozen):
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
    report: Report = Field(default_factory=lambda: Report.model_validate({}))

    @field_validator("report", mode="before")
    @classmethod
    def switched(cls, value: Any) -> Any:
        if value is False:
            return {"tasks": {}, "perplexity": False, "speed": False}
        return {} if value is True else value

    @model_validator(mode="after")
    def one_source(self) -> Compression:
        if self.data is not None and self.mixture:
            raise ValueError("give either data or mixture")
        return self
