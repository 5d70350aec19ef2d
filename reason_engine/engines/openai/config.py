"""Where the endpoints are and how they are spoken to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from reason_engine.engines.openai.wire.dialects import Kind
from reason_engine.engines.openai.wire.prefill import Prefill


class OpenAIConfig(BaseModel, extra="forbid", frozen=True):
    """One endpoint, or several with the same model.

    `replicas`: further endpoints. `model`: None takes the first one listed. `api_key`: None sends a placeholder;
    OPENAI_API_KEY is read for OpenAI's own host only, so that it reaches no other. `dialect`: the kind of server;
    `auto`: recognised at start. `context`: tokens, where the endpoint does not tell. `logprobs`: most alternatives it
    reports, -1 for an endpoint without any; None: found at start. `tokenizer`: a local checkpoint folder whose
    tokenizer and template are the served model's. `limit_field`: how the endpoint calls the length limit of a chat.
    `prefill`: how it takes a begun answer (`wire/prefill.py`); `auto` finds out at start, `no`: not at all. `probe`:
    whether it is asked at start what it can do. `connect_timeout`: seconds until a connection stands, `timeout`:
    seconds without a byte, after which an endpoint is left and a request goes on elsewhere. `max_retries`: how often a
    request that failed is sent again where no other endpoint can take it. `max_wait`: most seconds that one request
    waits for endpoints that say they are at capacity. `extra_body`: fields added to every request.
    """

    base_url: str
    replicas: tuple[str, ...] = ()
    model: str | None = None
    api_key: SecretStr | None = None
    dialect: Literal["auto"] | Kind = "auto"
    tokenizer: str | None = None
    context: int | None = Field(None, ge=1)
    logprobs: int | None = Field(None, ge=-1)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    prefill: Literal["auto", "no"] | Prefill = "auto"
    probe: bool = True
    connect_timeout: float = Field(10, gt=0, allow_inf_nan=False)
    timeout: float = Field(120, gt=0, allow_inf_nan=False)
    max_retries: int = Field(2, ge=0)
    max_wait: float = Field(120, ge=0)
    extra_body: Mapping[str, Any] = Field(default_factory=dict[str, Any])

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.base_url, *self.replicas)

    @field_validator("base_url", "replicas")
    @classmethod
    def addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Each is an address of a server."""
        for url in (value,) if isinstance(value, str) else value:
            check_url(url)
        return value

    @model_validator(mode="after")
    def apart(self) -> OpenAIConfig:
        """No endpoint stands there twice: it would seem to have twice the room that it has."""
        names = [url.rstrip("/") for url in self.urls]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice} is named twice")
        return self


def check_url(url: str) -> None:
    """Raises ValueError for what is no address of a server."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        named = False
    if not named:
        raise ValueError(f"{url!r} is not the address of an endpoint; it looks like http://host:8000/v1")


def is_openai(url: str) -> bool:
    """Whether it is OpenAI's own host."""
    return urlsplit(url).hostname == "api.openai.com"


def shown(url: str) -> str:
    """An endpoint's address as it may be shown: without a user's name, password or query."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
