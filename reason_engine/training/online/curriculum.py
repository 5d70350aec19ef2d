"""Which problems a policy is asked next: a mixture of generators or a file of prompts with answers, in a curriculum.

A stage lays other params over families of the mixture until the mean reward of late steps reaches `until`; the mixture
as it stands follows the last stage. Where a course stands is part of the run's checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from reason_engine.answers import find
from reason_engine.data import Example
from reason_engine.data.formats.rows import Reference, question_of
from reason_engine.data.mixture import Part, Stream
from reason_engine.errors import SetupError
from reason_engine.training.common.config import Frozen
from reason_engine.training.common.source import FileSource
from reason_engine.types import Message, Problem

if TYPE_CHECKING:
    from reason_engine.training.online.loop import Online

LATE = 0.8
"""Share of the running mean that one step leaves in place."""


class Stage(Frozen):
    """`params` by family. `steps`: the stage ends after so many of them at the latest."""

    params: Mapping[str, Mapping[str, Any]]
    until: float = Field(0.8, allow_inf_nan=False, description="Mean reward at which the next stage begins")
    steps: int | None = Field(None, ge=1)


@dataclass(frozen=True, slots=True)
class Task:
    """A problem to be tried. `bare`: its right answer is a whole text, without the mark of an answer."""

    problem: Problem
    family: str = ""
    bare: bool = False


class Course:
    """Tasks without end; a `Source` in the eyes of a checkpoint."""

    def __init__(self, config: Online) -> None:
        """Raises SetupError for a file that cannot be read or fits no format."""
        self._stages = config.curriculum
        if config.mixture:
            mixtures = [staged(config.mixture, stage) for stage in self._stages]
            self._sources = [Stream(parts, config.seed) for parts in (*mixtures, config.mixture)]
        else:
            assert config.data is not None
            self._sources = [FileSource(config.data, (Reference,), config.seed, config.format)]
        self.stage = self._begun = 0
        self._mean: float | None = None

    def take(self, count: int) -> list[Task]:
        """The next tasks."""
        return [task_of(next(self._sources[self.stage])) for _ in range(count)]

    def saw(self, reward: float, step: int) -> None:
        """OnProgress the mean reward of a step; the next stage begins where this one is mastered."""
        if self.stage == len(self._stages):
            return
        self._mean = reward if self._mean is None else LATE * self._mean + (1 - LATE) * reward
        stage = self._stages[self.stage]
        if self._mean >= stage.until or (stage.steps and step - self._begun >= stage.steps):
            self.stage, self._begun, self._mean = self.stage + 1, step, None

    def state(self) -> list[Any]:
        """Plain values."""
        return [self.stage, self._begun, self._mean, [source.state() for source in self._sources]]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a kept state."""
        self.stage, self._begun, self._mean, states = state
        for source, one in zip(self._sources, states, strict=True):
            source.restore(one)


def staged(mixture: Sequence[Part], stage: Stage) -> tuple[Part, ...]:
    """The mixture with a stage's params laid over. Raises ValueError naming a family or param at fault."""
    families = {part.family for part in mixture}
    if unknown := set(stage.params) - families:
        raise ValueError(f"params: the mixture has no family {sorted(unknown)[0]!r}")
    laid = [(part, {**part.params, **stage.params.get(part.family, {})}) for part in mixture]
    return tuple(Part(family=part.family, share=part.share, params=params) for part, params in laid)


def task_of(row: Example | Reference) -> Task:
    """The problem of a row. Raises SetupError for a prompt that does not end with the user's turn."""
    if isinstance(row, Reference):
        if row.prompt[-1].role != "user":
            raise SetupError(
                f"a prompt must end with the user's turn; the one answered {row.answer!r} does not"
            )
        problem = Problem(
            question_of(row), row.prompt[:-1], reference=find(row.answer) or row.answer, meta=row.meta
        )
        return Task(problem)
    earlier = [
        turn for asked, said in row.history for turn in (Message("user", asked), Message("assistant", said))
    ]
    answer = find(row.answer)
    problem = Problem(
        row.question,
        tuple(earlier),
        reference=answer if answer is not None else row.answer.strip(),
    )
    return Task(problem, row.family, answer is None)
