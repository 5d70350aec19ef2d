"""What an operator may set, in one frozen model: file < environment (`REASON_PORT=9000`) < flag.

A file is YAML (or JSON) with the same names. Nested mappings are given in the environment as JSON. Secrets are
`SecretStr`, so that neither a log nor a trace shows them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from reason_engine.errors import SetupError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(BaseSettings):
    """Settings of a server, and of the engine that a command opens in its own process."""

    model_config = SettingsConfigDict(env_prefix="REASON_", frozen=True, extra="forbid", env_ignore_empty=True)

    model: str | None = Field(
        default=None, description="checkpoint folder, GGUF file, hub name or remote model; none: the bundled model"
    )
    served_name: str | None = Field(
        default=None, description="name under which clients ask for it; none: the model's own"
    )
    engine: str = Field(default="auto", description="auto, embedded, vllm, openai or scripted")
    reasoning_parser: str | None = Field(
        default=None, description="how the model writes its thoughts; none: found from its chat template"
    )
    tool_parser: str | None = Field(
        default=None, description="how the model writes tool calls; none: found from its chat template"
    )
    strategy: str | None = Field(default=None, description="strategy of requests that name none; none: direct")
    draft: str = Field(default="none", description="none, sam, ngram, suffix, model:PATH or eagle:PATH")
    adapters: Mapping[str, str] = Field(default_factory=dict[str, str], description="adapter folders by name")
    adapters_dir: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="folders that adapters may be loaded from while serving, comma-separated in the environment; "
        "none: no adapter is",
    )
    reward_models: Mapping[str, str] = Field(
        default_factory=dict[str, str],
        description="reward models by name: folders, or URLs of endpoints with vLLM's pooling API, #format=NAME behind "
        "them where their name does not tell the format; embed+URL: one that embeds",
    )
    reward_keys: Mapping[str, SecretStr] = Field(
        default_factory=dict[str, SecretStr],
        description="API keys of the endpoints among the reward models, by name; in the environment as JSON",
    )
    satisfaction: Mapping[str, Path] = Field(
        default_factory=dict[str, Path],
        description="files fitted to users' feedback, by the name under which requests ask for them",
    )

    knowledge: Path | None = Field(default=None, description="folder of documents that requests may retrieve from")
    knowledge_model: str | None = Field(
        default=None,
        description="what embeds passages: `served` (the model itself), the URL of an endpoint with /v1/embeddings, or "
        "the name of one among the reward models (NAME=embed+URL); none: they are found by words alone",
    )
    guard: Path | None = Field(default=None, description="YAML or JSON file of rules on requests and answers")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="comma-separated in the environment"
    )
    operator_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="may also change adapters; comma-separated in the environment"
    )
    open: bool = Field(default=False, description="serve beyond this machine without a key")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host headers accepted besides those of the bound address; `*` accepts any"
    )

    code_execution: bool = Field(
        default=False, description="votes and the verifier `code` may run programs that models write, in a sandbox"
    )

    max_tokens: int = Field(default=131_072, ge=1, description="most generated tokens of one request")
    max_seconds: float = Field(default=540.0, gt=0, description="most seconds of one request")
    max_samples: int = Field(default=1_024, ge=1, description="most generated sequences of one request")
    max_n: int = Field(default=128, ge=1, description="most choices of one request")
    max_width: int = Field(
        default=256, ge=1, description="most paths of one request at once: n times the strategy's width"
    )
    capacity: int = Field(default=512, ge=1, description="paths of all requests together before 429")
    max_body: int = Field(default=2 * 1024 * 1024, ge=1024, description="bytes of a request body before 413")
    traces: int = Field(default=256, ge=0, description="traces kept in memory")
    keepalive_seconds: float = Field(default=15.0, gt=0, description="silence on a stream before a comment is sent")
    drain_seconds: float = Field(default=30.0, ge=0, description="time that running requests get at shutdown")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"

    device: str = Field(default="auto", description="embedded: auto, cpu, cuda, cuda:0, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    weights: Literal["auto", "int8", "full"] = Field(
        default="auto",
        description="embedded: as they are stored (full), in 8-bit codes made while they are read (int8), or such "
        "codes on CPUs for models of 100 million parameters and more where no dtype is set (auto)",
    )
    threads: int | None = Field(default=None, ge=1, description="embedded: torch threads; none: as many as pay")
    context: int | None = Field(default=None, ge=16, description="tokens of prompt and answer; none: the model's own")
    max_rows: int = Field(default=64, ge=1, description="embedded: sequences decoded together; the rest waits")
    upstream_url: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="openai: base URL of the remote endpoint, /v1 included; several with the same model share the "
        "requests, comma-separated in the environment",
    )
    upstream_tokenizer: Path | None = Field(
        default=None,
        description="openai: checkpoint folder whose tokenizer and chat template are the served model's; prompts are "
        "then written here",
    )
    upstream_key: SecretStr | None = Field(default=None, description="openai: the key sent to it, and to no other host")
    upstream_prefill: Literal["auto", "no", "turn", "prefix", "flags"] = Field(
        default="auto",
        description="openai: how the endpoint goes on with a begun answer: by itself where the assistant's turn is the "
        "last (turn), where that turn says `prefix` (prefix), with `continue_final_message` (flags), not at all (no); "
        "auto: it is asked once at start",
    )
    upstream_connect_seconds: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="openai: until a connection to an endpoint stands"
    )
    upstream_idle_seconds: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="openai: without a byte of an answer, after which an endpoint is left and the request goes on at "
        "another one; a long queue or a long prompt is such a silence too",
    )
    vllm: Mapping[str, Any] = Field(default_factory=dict[str, Any], description="further vLLM engine arguments")

    @field_validator("api_keys", "operator_keys", "allowed_hosts", "adapters_dir", "upstream_url", mode="before")
    @classmethod
    def split(cls, value: object) -> object:
        """Commas separate values where one text stands for several; None is no value."""
        if value is None:
            return ()
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("adapters")
    @classmethod
    def names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        """`:` is kept for `model:strategy`."""
        for name in value:
            if not name or ":" in name:
                raise ValueError(f"adapter name {name!r} may not be empty or contain ':'")
        return value

    @property
    def protected(self) -> bool:
        """Whether requests need a key."""
        return bool(self.api_keys or self.operator_keys)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and environment only: no `.env` of the folder one happens to stand in."""
        return init_settings, env_settings


def load_settings(flags: Mapping[str, Any] | None = None, file: Path | None = None) -> Settings:
    """Merge the three sources; a flag that is None was not given. Raises SetupError naming the key and its source."""
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        environment = Settings()
        set_there = {key: getattr(environment, key) for key in environment.model_fields_set}
        settings = Settings(**{**_read(file), **set_there, **given})
    except SettingsError as error:
        raise SetupError(f"environment: {error}") from None
    except ValidationError as error:
        raise SetupError(_explain(error)) from None
    if settings.host not in LOOPBACK and not settings.protected and not settings.open:
        raise SetupError(
            f"host {settings.host!r} is reachable from other machines: set an API key (--api-key), or say --open"
        )
    return settings


def _read(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    import yaml

    try:
        content: object = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise SetupError(f"{file}: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SetupError(f"{file}: expected a mapping of settings")
    return {str(key): value for key, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _explain(error: ValidationError) -> str:
    """The first fault in one line: key, reason, and the nearest key where it is unknown."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Settings.model_fields, 1)
        return f"unknown setting {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"setting {key!r}: {first['msg']}"
