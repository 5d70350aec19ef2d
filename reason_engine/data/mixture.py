"""A mixture of families by share of examples: what a recipe trains on, drawn without end from one seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reason_engine.data import Example, Family, families
from reason_engine.errors import RequestError

HISTORY = 0.03


class Part(BaseModel):
    """One family of a mixture: `share` is relative, `params` are the family's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    family: str
    share: float = Field(gt=0)
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def exists(self) -> Part:
        self.build()
        return self

    def build(self) -> Family:
        """The family with its params. Raises ValueError that names the key at fault."""
        try:
            return families.get(self.family)(**self.params)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("params", *first["loc"]))
            raise ValueError(f"{self.family}: {where}: {first['msg']}") from None
        except RequestError as error:
            raise ValueError(error.message) from None


class Stream:
    """Examples without end; a few carry an earlier exchange as their history. Its state can be kept and taken up."""

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self._built, self._shares = [part.build() for part in parts], [part.share for part in parts]
        self._rng = random.Random(f"train-{seed}")  # evaluations seed theirs with another prefix
        self._earlier: tuple[str, str] | None = None

    def __iter__(self) -> Iterator[Example]:
        return self

    def __next__(self) -> Example:
        one = self._rng.choices(self._built, self._shares)[0].example(self._rng)
        earlier, short = self._earlier, len(one.question) + len(one.answer) < 300
        self._earlier = (one.question, one.answer) if short else None
        if earlier and self._rng.random() < HISTORY:
            return replace(one, history=(earlier,))
        return one

    def state(self) -> list[Any]:
        """Where the stream stands, in plain values."""
        return [self._rng.getstate(), self._earlier]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a kept state."""
        version, words, gauss = state[0]
        self._rng.setstate((version, tuple(words), gauss))
        self._earlier = tuple(state[1]) if state[1] else None


def digest(parts: Sequence[Part], seed: int) -> str:
    """A short hash of the first thousand examples: the same where mixture, seed and generators are the same."""
    sha = hashlib.sha256()
    source = Stream(parts, seed)
    for _ in range(1000):
        sha.update(json.dumps(next(source).messages()).encode())
    return sha.hexdigest()[:16]
