"""Names with parameters, as they are written on a command line.

    direct                      self-consistency:n=16,adaptive=true
    word-problems:steps=3-5     {"strategy": "best-of-n", "n": 16, "verifier": {"name": "countdown"}}

Several stand in one text with commas between. A value is JSON where it reads as such, else text.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ValidationError

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
    labels = [spec.label for spec in specs]
    if not specs:
        raise SetupError(f"no {kind} is named")
    if double := next((label for label in labels if labels.count(label) > 1), None):
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
        where = ".".join(str(part) for part in first["loc"]) or "(all)"
        message = f"{registry.kind} {spec.name!r}: {where}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] == "extra_forbidden":
            fields = list(made.model_fields)
            near = difflib.get_close_matches(where, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(fields) or 'none'}"
            message = f"{registry.kind} {spec.name!r} has no key {where!r}; {hint}"
        raise SetupError(message) from None


def _range(value: object) -> object:
    """`3-5`, `4` and `[3, 5]` are ranges, both ends included."""
    if isinstance(value, str):
        low, dash, high = value.partition("-")
        value = (low, high if dash else low)
    elif isinstance(value, int):
        value = (value, value)
    if isinstance(value, (list, tuple)) and len(value) == 2:
        low, high = (int(end) if str(end).strip().isdecimal() else -1 for end in value)
        if 1 <= low <= high:
            return low, high
    raise ValueError("expected a range such as 3-5")


Range = Annotated[tuple[int, int], BeforeValidator(_range)]


def _split(text: str, kind: str) -> Iterator[str]:
    """At commas outside braces; a part `key=value` belongs to the spec before it."""
    parts, depth, start = list[str](), 0, 0
    for place, sign in enumerate(text):
        depth += {"{": 1, "}": -1, "[": 1, "]": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    whole = list[str]()
    for part in map(str.strip, parts):
        key = part.partition("=")[0]
        if whole and "=" in part and ":" not in key and not part.startswith("{"):
            whole[-1] += f",{part}"
        elif part:
            whole.append(part)
        else:
            raise SetupError(f"{kind}: an empty name in {text!r}")
    yield from whole


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
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise SetupError(f"{kind} {name!r}: expected key=value, not {pair!r}")
        if key.strip() in params:
            raise SetupError(f"{kind} {name!r}: {key.strip()} is given twice")
        params[key.strip()] = _value(value.strip())
    return Spec(name.strip(), params)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


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
