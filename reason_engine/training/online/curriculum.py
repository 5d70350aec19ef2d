"""The problems that a policy is asked next: a mixture of generators or a file of prompts with answers, in stages.

A stage replaces params of families of the mixture until the mean reward of late steps reaches `until`; the mixture
without replacements follows the last stage. The state of a curriculum is part of the run's checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reason_engine.answers import find
from reason_engine.data import Example
from reason_engine.data.formats.rows import Reference, question_of
from reason_engine.data.mixture import Stream
from reason_engine.errors import SetupError
from reason_engine.training.common.encode import FileSource
from reason_engine.training.online.recipe import Online
from reason_engine.types import Message, Problem

LATE = 0.8
"""Share of the running mean that one step leaves in place."""


@dataclass(frozen=True, slots=True)
class TrainingProblem:
    """A problem to be tried. `bare`: its right answer is a whole text, without the mark of an answer."""

    problem: Problem
    family: str = ""
    bare: bool = False


class Curriculum:
    """Problems without end; a `Source` to a checkpoint."""

    def __init__(self, config: Online) -> None:
        """Raises SetupError for a file that cannot be read or fits no format."""
        self._stages = config.curriculum
        if config.mixture:
            mixtures = [stage.mixture(config.mixture) for stage in self._stages]
            self._sources = [Stream(parts, config.seed) for parts in (*mixtures, config.mixture)]
        else:
            assert config.data is not None
            self._sources = [FileSource(config.data, (Reference,), config.seed, config.format)]
        self.stage = self._begun = 0
        self._mean: float | None = None

    def take(self, count: int) -> list[TrainingProblem]:
        """The next problems."""
        return [training_problem(next(self._sources[self.stage])) for _ in range(count)]

    def record(self, reward: float, step: int) -> None:
        """Takes the mean reward of a step; the next stage begins where this one is mastered."""
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


def training_problem(row: Example | Reference) -> TrainingProblem:
    """The problem of a row. Raises SetupError for a prompt that does not end with the user's turn."""
    answer = find(row.answer)
    if isinstance(row, Reference):
        if row.prompt[-1].role != "user":
            raise SetupError(
                f"a prompt must end with the user's turn; the one answered {row.answer!r} does not"
            )
        question, earlier = question_of(row), row.prompt[:-1]
        return TrainingProblem(Problem(question, earlier, reference=answer or row.answer, meta=row.meta))
    turns = (
        turn for asked, said in row.history for turn in (Message("user", asked), Message("assistant", said))
    )
    reference = answer if answer is not None else row.answer.strip()
    return TrainingProblem(
        Problem(row.question, tuple(turns), reference=reference), row.family, answer is None
    )
