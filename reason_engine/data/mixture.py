"""A mixture of families by share of examples: what a recipe trains on, drawn without end from one seed.

`generate_rows` is what `reason data generate` calls: one family or a recipe's mixture, as rows or written to a file.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from reason_engine.data import Example, Family, Options, families
from reason_engine.errors import RequestError, SetupError


class Part(Options):
    """One family of a mixture: `share` is relative, `params` are the family's own fields."""

    family: str
    share: float = Field(gt=0)
    params: dict[str, Any] = Field({})

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
            where = ".".join(map(str, ("params", *first["loc"])))
            raise ValueError(f"{self.family}: {where}: {first['msg']}") from None
        except RequestError as error:
            raise ValueError(error.message) from None


class Stream(Iterator[Example]):
    """Examples without end; a few carry an earlier exchange as their history. Its state can be kept and taken up."""

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self._built, self._shares = [part.build() for part in parts], [part.share for part in parts]
        self._rng = random.Random(f"train-{seed}")  # evaluations seed theirs with another prefix
        self._earlier: tuple[str, str] | None = None

    def __next__(self) -> Example:
        one = self._rng.choices(self._built, self._shares)[0].example(self._rng)
        earlier, short = self._earlier, len(one.question) + len(one.answer) < 300
        self._earlier = (one.question, one.answer) if short else None
        return replace(one, history=(earlier,)) if earlier and self._rng.random() < 0.03 else one

    def state(self) -> list[Any]:
        """Where the stream stands, in plain values."""
        return [self._rng.getstate(), self._earlier]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a kept state."""
        self._rng.setstate((state[0][0], tuple(state[0][1]), state[0][2]))
        self._earlier = tuple(state[1]) if state[1] else None


def digest(parts: Sequence[Part], seed: int) -> str:
    """A short hash of the first thousand examples: the same where mixture, seed and generators are the same."""
    text = "".join(json.dumps(example.messages()) for example in islice(Stream(parts, seed), 1000))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe() -> str:
    """One line a family: its name and what it holds."""
    held = {name: (families.get(name).example.__doc__ or "").partition("\n\n")[0] for name in families}
    return "\n".join(f"{name:12} {' '.join(text.split())}" for name, text in held.items())


def generate_rows(
    family: str | None, recipe: Path | None, count: int, seed: int, settings: Sequence[str], out: Path | None
) -> Iterator[dict[str, Any]]:
    """Rows for standard output; none where they were written to `out`. Raises SetupError or UnknownName."""
    if family is not None and recipe is not None:
        raise SetupError("give either --family or --config")
    parts = [_single_part(family, settings)] if family is not None else _parts_of(recipe)
    examples = islice(Stream(parts, seed), count)
    if out is None:
        return (example.to_json() for example in examples)
    try:
        write_examples(out, examples)
    except OSError as error:
        raise SetupError(f"{out}: {error}") from None
    return iter(())


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON lines of the format `messages`; the number written."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            count += 1
            file.write(json.dumps(example.to_json(), ensure_ascii=False) + "\n")
    return count


def _single_part(family: str, settings: Sequence[str]) -> Part:
    families.get(family, param="--family")
    params: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key:
            raise SetupError(f"--set {setting}: must be key=value")
        params[key] = yaml.safe_load(text)
    return _valid({"family": family, "share": 1, "params": params}, "--set")


def _parts_of(recipe: Path | None) -> list[Part]:
    assert recipe is not None
    try:
        values = yaml.safe_load(recipe.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"{recipe}: {' '.join(str(error).split())}") from None
    rows = values.get("mixture") if isinstance(values, dict) else None
    if not isinstance(rows, list) or not rows:
        raise SetupError(f"{recipe}: mixture: must be a list of families")
    return [_valid(part, f"{recipe}: mixture.{place}") for place, part in enumerate(rows)]


def _valid(values: Any, where: str) -> Part:
    try:
        return Part.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise SetupError(": ".join(filter(None, (where, key, message)))) from None
