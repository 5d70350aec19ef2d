"""JSON in one spelling: keys sorted, no spaces that mean nothing, equal numbers alike (`1.0` is `1`, `5e-1` is `0.5`).
Part of `answers`.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn


def canonical_json(text: str) -> str | None:
    """The one spelling of a JSON text; None where it is none."""
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_refuse)
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


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
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_TRIES = 32
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
_ONE_FENCE = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
