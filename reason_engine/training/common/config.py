"""A training config: YAML file, then `key=value` settings, then validation that names the key at fault."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from reason_engine.errors import SetupError

Config = TypeVar("Config", bound=BaseModel)


def _compiled(value: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return value


Patterns = Annotated[tuple[str, ...], AfterValidator(_compiled)]
"""Regular expressions."""


class Frozen(BaseModel):
    """Base of config sections: frozen; an unknown key is an error, and so is a number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def load(kind: type[Config], file: Path | None, settings: Sequence[str] = ()) -> Config:
    """The config of a file with `a.b=value` settings laid over it. Raises SetupError naming file or key."""
    values, where = ({}, "") if file is None else (_read(file), f"{file}: ")
    for setting in settings:
        _lay(values, setting)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SetupError(f"{where}{_first(kind, error)}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text("utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file}: {error}") from None
    except yaml.YAMLError as error:
        raise SetupError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SetupError(f"{file}: must be a mapping of keys")
    return values


def _lay(values: dict[str, Any], setting: str) -> None:
    key, found, text = setting.partition("=")
    if not found or not key:
        raise SetupError(f"--set {setting}: must be key=value")
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise SetupError(f"--set {setting}: {part!r} is {inner!r}, which holds no keys; write it as a mapping")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SetupError(f"--set {setting}: the value is not YAML") from None


def _first(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "(config)"
    if first["type"] == "extra_forbidden":
        *outer, last = map(str, first["loc"])
        near = difflib.get_close_matches(last, _fields(kind, outer), 1)
        return f"{where}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _fields(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section that the path leads to; none where it leads through a list or a choice of sections."""
    for part in path:
        field = kind.model_fields.get(part)
        found = (get_args(field.annotation) or (field.annotation,)) if field else ()  # such as `Peft | None`
        inner = [one for one in found if isinstance(one, type) and issubclass(one, BaseModel)]
        if len(inner) != 1:
            return []
        kind = inner[0]
    return list(kind.model_fields)
