"""Training data: families of generated examples, and the files that rows are kept in.

A family is a frozen pydantic model: its fields are the knobs a recipe may turn, `example(rng)` draws one example, and
nothing but `rng` decides what comes out. The first line of that method's docstring says what the family holds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from reason_engine.registry import Registry

STEPS = "Think step by step."


class Options(BaseModel):
    """Base of families, tasks and configs: frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the answer to learn. `weight` multiplies the loss of each of the answer's tokens; `skip` are
    character ranges of the answer that teach nothing (a deliberate mistake that is corrected later)."""

    question: str
    answer: str
    family: str = ""
    weight: float = 1.0
    skip: tuple[tuple[int, int], ...] = ()
    history: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The conversation, the last message being the answer."""
        turns = [*self.history, (self.question, self.answer)]
        return [
            {"role": role, "content": text}
            for question, answer in turns
            for role, text in (("user", question), ("assistant", answer))
        ]

    def to_json(self) -> dict[str, Any]:
        """The example as a row of the format `messages`; `weight` and `skip` only where they say something."""
        weight = {"weight": self.weight} if self.weight != 1.0 else {}
        skip = {"skip": [list(span) for span in self.skip]} if self.skip else {}
        return {"messages": self.messages(), "family": self.family, **weight, **skip}


class Family(Protocol):
    """A kind of training example."""

    def example(self, rng: random.Random) -> Example: ...


families: Registry[Family] = Registry("family", "reason_engine.data", "reason_engine.recipes")
