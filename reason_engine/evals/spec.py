"""Names with parameters, as they are written on a command line.

    direct                      self-consistency:n=16,adaptive=true
    word-problems:steps=3-5     {"strategy": "best-of-n", "n": 16, "verifier": {"name": "countdown"}}

Several stand in one text with commas between. A value is JSON where it reads as such, else text.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from reason_engine.contracts import Task
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.registry import Registry
from reason_engine.types import Problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spec:
    """A registered name and the parameters given with it."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def label(self) -> str:
        """The spec as text; what reports call it."""
        pairs = ",".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in self.params.items())
        return f"{self.name}:{pairs}" if pairs else self.name


def parse_specs(texts: list[str], kind: str) -> list[Spec]:
    """Every spec of these texts, in order. `kind` (`strategy`, `task`) is the key of the name in the JSON form.

    Raises SetupError on what cannot be read, a key given twice, or one spec given twice.
    """
    specs = [_parse(part, kind) for text in texts for part in _split(text, kind)]
    if not specs:
        raise SetupError(f"no {kind} is named")
    if double := next((label for label, count in Counter(spec.label for spec in specs).items() if count > 1), None):
        raise SetupError(f"{kind} {double!r} is given twice")
    return specs


def build(registry: Registry[T], spec: Spec) -> T:
    """The registered model with the spec's parameters. Raises SetupError naming the key at fault, UnknownName."""
    made = registry.get(spec.name)
    assert issubclass(made, BaseModel)
    try:
        return made.model_validate(dict(spec.params))
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])) or "(all)", f"{registry.kind} {spec.name!r}"
        if first["type"] != "extra_forbidden":
            raise SetupError(f"{what}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
        fields = list(made.model_fields)
        near = difflib.get_close_matches(where, fields, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(fields) or 'none'}"
        raise SetupError(f"{what} has no key {where!r}; {hint}") from None


def _split(text: str, kind: str) -> list[str]:
    """At commas outside braces; a part `key=value` belongs to the spec before it."""
    parts, depth, whole = [""], 0, list[str]()
    for sign in text:
        depth += (sign in "{[") - (sign in "}]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    for part in map(str.strip, parts):
        key = part.partition("=")[0]
        if whole and "=" in part and ":" not in key and not part.startswith("{"):
            whole[-1] += f",{part}"
        elif part:
            whole.append(part)
        else:
            raise SetupError(f"{kind}: an empty name in {text!r}")
    return whole


def _parse(text: str, kind: str) -> Spec:
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise SetupError(f"{kind} {text!r} is not JSON: {error}") from None
        name = data.pop(kind, None)
        if not isinstance(name, str):
            raise SetupError(f"{kind} {text!r} needs the key {kind!r} with a name")
        return Spec(name, data)
    name, colon, rest = text.partition(":")
    params = dict[str, Any]()
    for pair in rest.split(",") if colon else ():
        key, equals, value = map(str.strip, pair.partition("="))
        if not equals or not key:
            raise SetupError(f"{kind} {name!r}: expected key=value, not {pair!r}")
        if key in params:
            raise SetupError(f"{kind} {name!r}: {key} is given twice")
        params[key] = value
        with suppress(ValueError):
            params[key] = json.loads(value)
    return Spec(name.strip(), params)


@runtime_checkable
class DevelopmentTask(Task, Protocol):
    """A task that has problems for development, drawn from other seeds or another split than its test problems."""

    def development(self, limit: int | None, seed: int) -> list[Problem]: ...


def development_task(spec: Spec) -> DevelopmentTask:
    """The task. Raises UnknownName, SetupError naming a key at fault, or that it has test problems only."""
    task = build(tasks, spec)
    if not isinstance(task, DevelopmentTask):
        known = ", ".join(name for name in tasks if issubclass(tasks.get(name), DevelopmentTask))
        raise SetupError(
            f"task {spec.name!r} has test problems only, and nothing is fitted to those; these have others: {known}"
        )
    return task
