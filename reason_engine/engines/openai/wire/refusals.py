"""The SDK's errors as the package's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from reason_engine import errors


def mapped_error(error: Exception) -> Exception:
    """An error of the SDK as the package's own; anything else unchanged."""
    import openai

    match error:
        case errors.ReasonError():
            return error
        case openai.APITimeoutError():
            return errors.EngineError("the endpoint did not answer in time")
        case openai.APIConnectionError():
            return errors.EngineDead(f"the endpoint cannot be reached: {error.__cause__ or error}")
        case openai.RateLimitError():
            return errors.EngineBusy(f"the endpoint is at its capacity: {error.message}", pause=_pause(error))
        case openai.NotFoundError():
            return errors.UnknownModel(error.message, param="model", code="model_not_found")
        case openai.APIStatusError(status_code=status) if status in (400, 413, 422):
            if _is_context(error):
                return errors.ContextLengthExceeded(error.message, param="messages", code="context_length_exceeded")
            return errors.RequestError(error.message, param=error.param, code=error.code or "invalid_request")
        case openai.APIStatusError(status_code=401 | 403):
            return errors.EngineError(f"the endpoint refused the key: {error.message}")
        case openai.APIStatusError(status_code=503):
            return errors.EngineBusy(f"the endpoint is not ready: {error.message}", pause=_pause(error))
        case openai.APIError():
            return errors.EngineError(f"the endpoint failed: {error.message}")
        case _:
            return error


def refused_key(error: BaseException) -> bool:
    """Whether the endpoint wants another key, which no other attempt will change."""
    import openai

    return isinstance(error.__cause__, openai.AuthenticationError | openai.PermissionDeniedError)


def pause_told(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before the next attempt, as `retry-after-ms` or `retry-after` say (RFC 9110, 10.2.3: seconds or
    a date); None where they say nothing that can be read."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (told := headers.get("retry-after", "")).strip().isdecimal():
            seconds = float(told)
        else:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _pause(error: Any) -> float | None:
    return pause_told(error.response.headers)


def _is_context(error: Any) -> bool:
    words = str(error.message).lower()
    code = str(error.code or getattr(error, "type", ""))
    long = ("context length", "context window", "context size")
    return code in ("context_length_exceeded", "exceed_context_size_error") or any(one in words for one in long)
