"""Which strategy answers a request: the first source that names one wins, every other key applies to it.

1. `reasoning.strategy` in the body; 2. the model's name (`model:strategy`); 3. `reasoning_effort`; 4. the server's
default; 5. `direct`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from reason_engine.errors import UnknownModel
from reason_engine.serving.api.errors import invalid, validated
from reason_engine.serving.api.schema import Effort
from reason_engine.strategies import Strategy, strategies

EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
WIDE = ("xhigh", "max")
"""Efforts that may run 64 paths at once."""
CLIENT_KEYS = {
    **dict.fromkeys(("effort", "summary", "generate_summary"), str),
    "max_tokens": int,
    **dict.fromkeys(("exclude", "enabled"), bool),
}
"""Keys of `reasoning` that other clients send, with their types."""


@dataclass(frozen=True, slots=True)
class StrategyChoice:
    """The strategy of a request. `think`: False turns thinking off. `exclude`: leave the reasoning text out."""

    name: str
    strategy: Strategy
    think: bool | None = None
    exclude: bool = False


def split_model(name: str | None, base: str, adapters: Sequence[str]) -> tuple[str | None, str | None]:
    """(adapter, strategy) of a model name, None where it names none. Raises UnknownModel (404)."""
    if name is None or name == base:
        return None, None
    if name in adapters:
        return name, None
    head, colon, tail = name.rpartition(":")
    if colon and tail in strategies and (head == base or head in adapters):
        return (None if head == base else head), tail
    known = [f"{model}{suffix}" for model in (base, *adapters) for suffix in ("", *(f":{s}" for s in strategies))]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"this server has {', '.join((base, *adapters))}"
    raise UnknownModel(f"no model named {name[:200]!r}; {hint}", param="model", code="model_not_found")


def _by_effort(effort: str) -> tuple[str, Mapping[str, Any]]:
    """The strategy that stands for a `reasoning_effort`, with its settings."""
    if effort in ("none", "minimal"):
        return "direct", {}
    return "auto", {"effort": effort, "n": 64 if effort in WIDE else 16}


def choose_strategy(
    reasoning: Mapping[str, Any] | None, suffix: str | None, effort: Effort | None, default: str | None
) -> StrategyChoice:
    """The strategy of a request. Raises RequestError (400) naming the key, its range and the nearest valid value."""
    options = dict(reasoning or {})
    named = options.pop("strategy", None)
    if named is not None and not isinstance(named, str):
        raise invalid("reasoning.strategy", "must be a string")
    given = {key: options[key] for key in CLIENT_KEYS if key in options}
    _check_client_keys(given)
    wanted = effort or given.get("effort") or ("none" if given.get("enabled") is False else None)
    preset: Mapping[str, Any] = {}
    if named is not None or suffix is not None:
        name = str(suffix if named is None else named)
    elif wanted:
        name, preset = _by_effort(wanted)
    else:
        name = default or "direct"
    kind = _strategy_class(name)
    if wanted and not preset and "effort" in kind.model_fields:
        preset = {"effort": wanted}
    for key in given:
        # A strategy may have an option of the same name; then it is meant for the strategy.
        if key not in kind.model_fields:
            del options[key]
    strategy = validated(kind, {**preset, **options}, prefix="reasoning", what=f"strategy {name!r}")
    return StrategyChoice(name, strategy, False if wanted == "none" else None, bool(given.get("exclude")))


@cache
def _strategy_class(name: str) -> type[Strategy]:
    return strategies.get(name, param="reasoning.strategy")


def _check_client_keys(given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        kind = CLIENT_KEYS[key]
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise invalid(f"reasoning.{key}", f"must be a {kind.__name__}")
    effort: str | None = given.get("effort")
    if effort is not None and effort not in EFFORTS:
        near = difflib.get_close_matches(effort, EFFORTS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise invalid("reasoning.effort", f"one of {', '.join(EFFORTS)}{hint}")
