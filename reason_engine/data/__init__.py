"""Training data: families of generated examples, and the files they are kept in.

A family is a frozen pydantic model: its fields are the knobs a recipe may turn, `example(rng)` draws one example, and
nothing but `rng` decides what comes out.
"""

from __future__ import annotations

import random
from typing import Protocol

from reason_engine.data.formats.examples import Example
from reason_engine.registry import Registry


class Family(Protocol):
    """A kind of training example."""

    def example(self, rng: random.Random) -> Example: ...


families: Registry[Family] = Registry("family", "reason_engine.data", "reason_engine.recipes")

__all__ = ["Example", "Family", "families"]
