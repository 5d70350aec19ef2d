"""Turns pydantic's findings into one 400 that names the dotted key, the range, and the nearest valid value or name.

Reads JSON request bodies strictly: no duplicate keys, no NaN, no lone surrogates, no bottomless nesting.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from reason_engine.errors import RequestError, UnknownName

M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], values: Mapping[str, Any], *, prefix: str = "", what: str = "the request") -> M:
    """`model` from JSON values, without coercion. Raises RequestError for the first fault."""
    try:
        # JSON mode, so that strictness means JSON's own types: an array for a tuple, 1 for 1.0, never "1" for 1.
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise explained(error, model, prefix, what) from None


def explained(error: ValidationError, model: type[BaseModel], prefix: str, what: str) -> RequestError:
    """The first fault of a validation as a RequestError."""
    first = error.errors(include_url=False, include_context=True)[0]
    place = _place(first["loc"])
    key = ".".join(part for part in (prefix, *place) if part)
    if first["type"] == "extra_forbidden":
        names = _names(model, place[:-1])
        return UnknownName(
            f"{key}: {what} has no such option; {nearest(place[-1], names)}",
            param=key,
            code="unknown_parameter",
        )
    if first["type"] == "missing":
        return RequestError(f"{key}: is required", param=key, code="missing_parameter")
    given = first.get("input")
    field = _schema(model, place)
    return RequestError(
        f"{key}: {_reason(first['msg'])}; {_allowed(field)}got {_short(given)}{_hint(field, given)}",
        param=key,
        code="invalid_value",
    )


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema, made once: it takes longer than anything else in a refusal."""
    return model.model_json_schema()


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list where nothing is near."""
    known = sorted(names)
    found = difflib.get_close_matches(name, known, 1, 0.5)
    return f"did you mean {found[0]!r}?" if found else f"one of: {', '.join(known)}"


def _place(loc: tuple[int | str, ...]) -> list[str]:
    """Without the tags that pydantic adds for members of a union."""
    return [str(part) for part in loc if not (isinstance(part, str) and ("[" in part or part in _TAGS))]


_TAGS = {"str", "int", "float", "bool", "dict", "list", "tuple"}


def _names(model: type[BaseModel], place: list[str]) -> list[str]:
    schema = schema_of(model)
    here = _resolve(schema, place)
    return list(here.get("properties", {})) or list(schema.get("properties", {}))


def _schema(model: type[BaseModel], place: list[str]) -> Mapping[str, Any]:
    return _resolve(schema_of(model), place)


def _resolve(schema: Mapping[str, Any], place: list[str]) -> Mapping[str, Any]:
    here: Mapping[str, Any] = schema
    for part in place:
        here = _plain(schema, here)
        here = here.get("properties", {}).get(part) or here.get("items") or {}
    return _plain(schema, here)


def _plain(schema: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and take the first member of a union that is not null."""
    if "anyOf" in here:
        here = next((member for member in here["anyOf"] if member.get("type") != "null"), here)
    if "$ref" in here:
        return schema.get("$defs", {}).get(str(here["$ref"]).rpartition("/")[2], {})
    return here


def _allowed(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return f"one of {', '.join(map(str, field['enum']))}; "
    low = next((f"{sign}{field[key]}" for key, sign in _LOW if key in field), "")
    high = next((f"{sign}{field[key]}" for key, sign in _HIGH if key in field), "")
    if low or high:
        return f"allowed: {' and '.join(part for part in (low, high) if part)}; "
    return ""


_LOW = (
    ("minimum", ">= "),
    ("exclusiveMinimum", "> "),
    ("minLength", "length >= "),
    ("minItems", "items >= "),
)
_HIGH = (
    ("maximum", "<= "),
    ("exclusiveMaximum", "< "),
    ("maxLength", "length <= "),
    ("maxItems", "items <= "),
)


def _hint(field: Mapping[str, Any], given: object) -> str:
    """The nearest valid value."""
    if isinstance(given, str) and "enum" in field:
        found = difflib.get_close_matches(given, [str(name) for name in field["enum"]], 1, 0.5)
        return f"; did you mean {found[0]!r}?" if found else ""
    if isinstance(given, int | float) and not isinstance(given, bool):
        low, high = field.get("minimum"), field.get("maximum")
        if high is not None and given > high:
            return f"; the nearest valid value is {high}"
        if low is not None and given < low:
            return f"; the nearest valid value is {low}"
    return ""


def _reason(message: str) -> str:
    plain = message.removeprefix("Value error, ").removeprefix("Input ")
    return plain[:1].lower() + plain[1:]


def _short(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(type(value).__name__)
    return text if len(text) <= 60 else text[:57] + "..."


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
