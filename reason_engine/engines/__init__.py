"""What generates text: the embedded torch engine, vLLM, a remote endpoint, and a scripted one for tests.

Each engine registers one class that implements `reason_engine.contracts.Engine`; importing this package loads none of
them. Below the registry stands what every engine refuses in the same words before anything runs.
"""

from __future__ import annotations

from collections.abc import Container

from reason_engine.contracts import Engine
from reason_engine.errors import ContextLengthExceeded, RequestError, UnknownModel
from reason_engine.registry import Registry
from reason_engine.types import GenerateRequest

engines: Registry[Engine] = Registry("engine", "reason_engine.engines")


def check_counts(request: GenerateRequest, running: Container[str] = ()) -> None:
    """An id that is not among those running, at least one sample, at least one token."""
    if request.id in running:
        raise RequestError(f"request {request.id!r} is already running", param="id")
    if request.n < 1:
        raise RequestError("n must be at least 1", param="n")
    if request.sampling.max_tokens < 1:
        raise RequestError("max_tokens must be at least 1", param="max_tokens")


def check_adapter(name: str | None, loaded: Container[str]) -> None:
    """None is the model itself."""
    if name is not None and name not in loaded:
        raise UnknownModel(f"no adapter named {name!r} is loaded", param="model", code="model_not_found")


def room_left(tokens: int, context: int) -> int:
    """Tokens that the context has left after a prompt of so many, at least 1."""
    if tokens == 0:
        raise RequestError("the prompt is empty", param="prompt")
    if tokens >= context:
        raise ContextLengthExceeded(
            f"the prompt has {tokens} tokens; the model's context is {context}, prompt and answer together",
            param="messages",
            code="context_length_exceeded",
        )
    return context - tokens
