"""Errors as the OpenAI API shapes them: `{"error": {"message", "type", "param", "code"}}`, `code` a word.

A client retries 408, 409, 429 and every 5xx by itself, so whatever would fail again is a 4xx or says
`x-should-retry: false`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from reason_engine.errors import (
    ContextLengthExceeded,
    EngineBusy,
    EngineDead,
    EngineError,
    ReasonError,
    RequestError,
    StrategyError,
    UnknownModel,
    VerifierError,
    first_error,
)

log = logging.getLogger("reason_engine.serving")

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
RETRY_BUSY, RETRY_DOWN = 1, 5


class Refused(RequestError):
    """A request that this server turns away with a status of its own."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, param=param, code=code)
        self.status = status
        self.headers = {} if retry_after is None else {"retry-after": str(max(1, retry_after))}


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
    """Classify an error by the boundary that it crossed. What is not ours is logged and told without details."""
    match error:
        case Refused():
            return Failure(error.status, error.message, error.code, error.param, error.headers)
        case RequestError():
            return Failure(error.status, error.message, _code(error), error.param)
        case EngineBusy():
            return Failure(
                429, str(error) or "the engine's queue is full", "queue_full", None, _wait(RETRY_BUSY)
            )
        case EngineDead():
            return Failure(503, f"the engine has stopped: {error}", "engine_dead", None, _wait(RETRY_DOWN))
        case EngineError():
            return Failure(500, f"the engine failed: {error}", "engine_error", None, _final())
        case VerifierError():
            return Failure(500, f"a verifier failed: {error}", "verifier_error", None, _final())
        case StrategyError():
            log.error("a strategy failed", exc_info=error)
            return Failure(500, f"the strategy failed: {error}", "strategy_error", None, _final())
        case ReasonError():
            log.error("unexpected failure", exc_info=error)
            return Failure(500, str(error), "internal_error", None, _final())
        case _:
            log.error("unexpected failure", exc_info=error)
            return Failure(500, "internal error; see the server's log", "internal_error", None, _final())


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
    if isinstance(error, ContextLengthExceeded):
        return "context_length_exceeded"
    return "model_not_found" if isinstance(error, UnknownModel) else error.code


def _wait(seconds: int) -> dict[str, str]:
    return {"retry-after": str(seconds)}


def _final() -> dict[str, str]:
    return {"x-should-retry": "false"}
