"""JSON in one spelling: keys sorted, no spaces that mean nothing, equal numbers alike (`1.0` is `1`, `5e-1` is `0.5`);
calls of functions in one order. Part of `answers`.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from math import isinf
from typing import Any, NoReturn, cast

LONG = 1e21
"""A whole number that is larger keeps its exponent."""


def canonical_json(text: str) -> str | None:
    """The one spelling of a JSON text; None where it is none."""
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_refuse)
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def canonical_calls(text: str) -> str | None:
    """The one spelling of a list of calls, each a name and its arguments in JSON: calls have no order. None where the
    text is no such list."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    calls = list[tuple[str, str]]()
    for item in cast(list[Any], value):
        match item:
            case [str(name), str(arguments)]:
                calls.append((name, canonical_json(arguments) or arguments))
            case _:
                return None
    return json.dumps(sorted(calls))


def found_json(text: str) -> str | None:
    """The canonical JSON in a text: all of it, else its last fence that holds some, else its first balanced object or
    list."""
    body = text.strip()
    if (whole := canonical_json(body)) is not None:
        return whole
    for fence in reversed(_FENCE.findall(body)):
        if (inside := canonical_json(fence.strip())) is not None:
            return inside
    decoder, place = json.JSONDecoder(parse_constant=_refuse), 0
    for _ in range(_TRIES):
        opening = _OPENING.search(body, place)
        if opening is None:
            return None
        try:
            _, end = decoder.raw_decode(body, opening.start())
        except (ValueError, RecursionError):
            place = opening.end()
            continue
        return canonical_json(body[opening.start() : end])
    return None


def whole_object(text: str) -> dict[str, object] | None:
    """The object that a text, or the one fence that it is, holds; None where it holds more or none."""
    body = text.strip()
    if match := _ONE_FENCE.fullmatch(body):
        body = match[1].strip()
    if not (body.startswith("{") and body.endswith("}")):
        return None
    try:
        value: dict[str, object] = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value


def _number(text: str) -> float | int:
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text} is larger than any number here")
    return int(Decimal(text)) if value.is_integer() and abs(value) < LONG else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_TRIES = 32
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
_ONE_FENCE = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
