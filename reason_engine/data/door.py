"""What `reason data` calls: families by name or a recipe's mixture, to rows or to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from reason_engine.data import families
from reason_engine.data.formats import row, write
from reason_engine.data.mixture import Part, Stream
from reason_engine.errors import SetupError


def describe() -> str:
    """One line a family: its name and what its file says first."""
    rows = []
    for name in families:
        family = families.get(name)
        module = __import__(family.__module__, fromlist=["__doc__"])
        rows.append(f"{name:12} {(module.__doc__ or '').strip().splitlines()[0]}")
    return "\n".join(rows)


def draw(
    family: str | None, recipe: Path | None, count: int, seed: int, settings: Sequence[str], out: Path | None
) -> Iterator[dict[str, Any]]:
    """Rows for standard output; none where they were written to `out`. Raises SetupError or UnknownName."""
    if family is not None and recipe is not None:
        raise SetupError("give either --family or --config")
    parts = [_one(family, settings)] if family is not None else _mixture(recipe)
    examples = islice(Stream(parts, seed), count)
    if out is None:
        return map(row, examples)
    try:
        write(out, examples)
    except OSError as error:
        raise SetupError(f"{out}: {error}") from None
    return iter(())


def _one(family: str, settings: Sequence[str]) -> Part:
    families.get(family, param="--family")
    params: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key:
            raise SetupError(f"--set {setting}: must be key=value")
        params[key] = yaml.safe_load(text)
    return _valid({"family": family, "share": 1, "params": params}, "--set")


def _mixture(recipe: Path | None) -> list[Part]:
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
        key = ".".join(str(part) for part in first["loc"])
        raise SetupError(
            f"{where}: {key}{': ' if key else ''}{first['msg'].removeprefix('Value error, ')}"
        ) from None
