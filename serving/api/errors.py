"""What a client is refused for: request bodies read and checked, and every error in the OpenAI API's shape.

Errors: `{"error": {"message", "type", "param", "code"}}`, `code` a word. A client retries 408, 409, 429 and every 5xx
by itself, so whatever would fail again is a 4xx or says `x-should-retry: false`.

Bodies: JSON is read strictly (no duplicate keys, no NaN, no lone surrogates, bounded nesting). What pydantic finds
becomes one 400 that names the dotted key, the range, and the nearest valid value or name.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from reason_engine import errors
from reason_engine.errors import RequestError, first_error

M = TypeVar("M", bound=BaseModel)
log = logging.getLogger("reason_engine.serving")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
RETRY_BUSY, RETRY_DOWN = {"retry-after": "1"}, {"retry-after": "5"}
FINAL = {"x-should-retry": "false"}
DEEPEST = 100
"""Levels of nested lists and objects that a body may have."""


class Refused(RequestError):
    """A request that this server turns away with a status of its own."""

    def __init__(
        self, status: int, message: str, code: str, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status, self.headers = status, headers or {}


@dataclass(frozen=True, slots=True)
class Failure:
    """What goes back to the client."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object; the same in a response and inside a stream."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def failure(error: BaseException) -> Failure:
    """Classify an error by the boundary that it crossed. Unexpected errors are logged, and reported without details."""
    match error:
        case Refused():
            return Failure(error.status, error.message, error.code, error.param, error.headers)
        case RequestError():
            return Failure(error.status, error.message, _code(error), error.param)
        case errors.EngineBusy():
            return Failure(429, str(error) or "the engine's queue is full", "queue_full", None, RETRY_BUSY)
        case errors.EngineDead():
            return Failure(503, f"the engine has stopped: {error}", "engine_dead", None, RETRY_DOWN)
        case errors.EngineError():
            return _final(f"the engine failed: {error}", "engine_error")
        case errors.VerifierError():
            return _final(f"a verifier failed: {error}", "verifier_error")
        case errors.StrategyError():
            log.error("a strategy failed", exc_info=error)
            return _final(f"the strategy failed: {error}", "strategy_error")
        case _:
            log.error("unexpected failure", exc_info=error)
            ours = isinstance(error, errors.ReasonError)
            return _final(str(error) if ours else "internal error; see the server's log", "internal_error")


def _final(message: str, code: str) -> Failure:
    """What would fail again."""
    return Failure(500, message, code, None, FINAL)


def invalid(param: str, why: str, code: str = "invalid_value") -> RequestError:
    """The refusal (400) of one field: `param` opens its message."""
    return RequestError(f"{param}: {why}", param=param, code=code)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Exception handler of the application."""
    found = failure(first_error(error))
    if found.status < 500 or found.status == 503:
        request.app.state.refused(found.code)
    return found.response()


async def on_status(request: Request, error: Exception) -> JSONResponse:
    """The framework's own refusals: unknown route, wrong method."""
    status = int(getattr(error, "status_code", 500))
    path = request.scope["path"]
    known = {
        404: ("unknown_url", f"no such route: {request.method} {path}"),
        405: ("method_not_allowed", f"{path} does not take {request.method}"),
    }
    code, message = known.get(status, ("error", str(getattr(error, "detail", "") or "request refused")))
    return Failure(status, message, code, None, dict(getattr(error, "headers", None) or {})).response()


def _code(error: RequestError) -> str:
    if error.code != "invalid_request":
        return error.code
    if isinstance(error, errors.ContextLengthExceeded):
        return "context_length_exceeded"
    return "model_not_found" if isinstance(error, errors.UnknownModel) else error.code


def validated(model: type[M], values: Mapping[str, Any], *, prefix: str = "", what: str = "the request") -> M:
    """`model` from JSON values, without coercion. Raises RequestError for the first fault."""
    try:
        # JSON mode, so that strictness means JSON's own types: an array for a tuple, 1 for 1.0, never "1" for 1.
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise _refusal(error, model, prefix, what) from None


def _refusal(error: ValidationError, model: type[BaseModel], prefix: str, what: str) -> RequestError:
    """The first fault of a validation as a RequestError."""
    first = error.errors(include_url=False, include_context=True)[0]
    place = _place(first["loc"])
    key = ".".join(part for part in (prefix, *place) if part)
    if first["type"] == "extra_forbidden":
        hint = nearest(place[-1], _field_names(model, place[:-1]))
        return errors.UnknownName(f"{key}: {what} has no such option; {hint}", param=key, code="unknown_parameter")
    if first["type"] == "missing":
        return invalid(key, "is required", "missing_parameter")
    given = first.get("input")
    field = _schema_at(schema_of(model), place)
    return invalid(key, f"{_reason(first['msg'])}; {_allowed(field)}got {_short(given)}{_nearest_value(field, given)}")


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


def _field_names(model: type[BaseModel], place: list[str]) -> list[str]:
    schema = schema_of(model)
    return list(_schema_at(schema, place).get("properties", {})) or list(schema.get("properties", {}))


def _schema_at(schema: Mapping[str, Any], place: list[str]) -> Mapping[str, Any]:
    """The part of a JSON schema that describes the value at `place`."""
    here: Mapping[str, Any] = schema
    for part in place:
        here = _dereferenced(schema, here)
        here = here.get("properties", {}).get(part) or here.get("items") or {}
    return _dereferenced(schema, here)


def _dereferenced(schema: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference, and take the first member of a union that is not null."""
    if "anyOf" in here:
        here = next((member for member in here["anyOf"] if member.get("type") != "null"), here)
    if "$ref" in here:
        return schema.get("$defs", {}).get(str(here["$ref"]).rpartition("/")[2], {})
    return here


def _allowed(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return f"one of {', '.join(map(str, field['enum']))}; "
    bounds = [
        next((f"{sign}{field[key]}" for key, sign in signs.items() if key in field), "") for signs in (_LOWER, _UPPER)
    ]
    return f"allowed: {' and '.join(filter(None, bounds))}; " if any(bounds) else ""


_LOWER = {"minimum": ">= ", "exclusiveMinimum": "> ", "minLength": "length >= ", "minItems": "items >= "}
_UPPER = {"maximum": "<= ", "exclusiveMaximum": "< ", "maxLength": "length <= ", "maxItems": "items <= "}


def _nearest_value(field: Mapping[str, Any], given: object) -> str:
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


async def read_object(request: Request) -> dict[str, Any]:
    """The request body as a JSON object. Raises RequestError (400) on anything else."""
    return parse_object(await request.body())


def parse_object(body: bytes) -> dict[str, Any]:
    """The same for bytes at hand."""
    if not body.strip():
        raise _not_json("the body is empty; a JSON object is needed")
    try:
        value: Any = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
    except UnicodeDecodeError:
        raise _not_json("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _not_json(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise _not_json("the body is nested too deeply") from None
    except RequestError:
        raise
    except ValueError:  # an integer of thousands of digits
        raise _not_json("the body holds a number out of range") from None
    if not isinstance(value, dict):
        raise _not_json("the body must be a JSON object")
    found = cast("dict[str, Any]", value)
    if deeper_than(found, DEEPEST):
        raise _not_json(f"the body is nested deeper than {DEEPEST} levels")
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
        raise _not_json("the body holds half of a surrogate pair") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _not_json(f"the key {twice!r} is given twice", twice)
    return found


def _constant(name: str) -> NoReturn:
    raise _not_json(f"{name} is not JSON")


def _not_json(message: str, param: str | None = None) -> RequestError:
    return RequestError(message, param=param, code="invalid_json")
