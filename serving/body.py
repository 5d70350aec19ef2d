"""Reads JSON request bodies strictly: no duplicate keys, no NaN, no lone surrogates, no bottomless nesting."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from starlette.requests import Request

from reason_engine.errors import RequestError

DEEPEST = 100


async def read_object(request: Request) -> dict[str, Any]:
    """The request body as a JSON object. Raises RequestError (400) on anything else."""
    return parse_object(await request.body())


def parse_object(body: bytes) -> dict[str, Any]:
    """The same for bytes at hand."""
    if not body.strip():
        raise RequestError("the body is empty; a JSON object is needed", code="invalid_json")
    try:
        value: Any = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except UnicodeDecodeError:
        raise RequestError("the body is not UTF-8", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None
    except RequestError:
        raise
    except ValueError:  # an integer of thousands of digits
        raise RequestError("the body holds a number out of range", code="invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object", code="invalid_json")
    found = cast("dict[str, Any]", value)
    if deeper_than(found, DEEPEST):
        raise RequestError(f"the body is nested deeper than {DEEPEST} levels", code="invalid_json")
    if b"\\u" in body:
        _check_surrogates(found)
    return found


def deeper_than(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep."""
    front: list[Any] = [value]
    for _ in range(levels):
        front = [inner for item in front for inner in _inside(item)]
        if not front:
            return False
    return any(isinstance(item, dict | list) for item in front)


def as_object(value: object) -> dict[str, Any] | None:
    """The value where it is a JSON object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any] | None:
    """The value where it is a JSON array."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def _inside(item: object) -> list[Any]:
    found = as_object(item)
    return list(found.values()) if found is not None else as_list(item) or []


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("the body holds half of a surrogate pair", code="invalid_json") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise RequestError(f"the key {twice!r} is given twice", param=twice, code="invalid_json")
    return found


def _constant(name: str) -> NoReturn:
    raise RequestError(f"{name} is not JSON", code="invalid_json")
