"""The body of `POST /v1/chat/completions`: lenient towards unknown fields, strict inside `reasoning` and `budget`.

Acted on: what `ChatRequest` names. Accepted without effect: user, metadata, store, service_tier, prompt_cache_*,
safety_identifier, verbosity and every unknown field. Refused with 400: what `REFUSED` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.errors import RequestError
from reason_engine.serving.api.validation import as_object, deeper_than, validated

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
INT64 = 2**63
SCHEMA_BYTES, SCHEMA_DEPTH = 65_536, 64

REFUSED = {
    "audio": "this server speaks text only",
    "prediction": "use reasoning.draft for speculative decoding",
    "web_search_options": "this server does not search the web",
    "moderation": "this server does not moderate",
    "functions": "functions are the old form; use tools",
    "function_call": "function_call is the old form; use tool_choice",
    "chat_template": "templates are never taken from a request",
    "prompt_logprobs": "log-probabilities of the prompt are not offered",
}


class Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(_Strict):
    """The caller's budget, under the operator's caps."""

    tokens: int | None = Field(default=None, ge=1, description="generated tokens, of all branches and judges")
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="wall-clock seconds")
    samples: int | None = Field(
        default=None, ge=1, description="generated sequences, steps and judges included"
    )


class StreamOptions(Lenient):
    include_usage: bool | None = Field(default=None, description="a last chunk with the usage")
    include_events: bool | None = Field(
        default=None, description="`reason.events` in the chunks: the live tree"
    )


class JsonSchema(Lenient):
    name: str | None = None
    description: str | None = None
    # `schema` is a method of pydantic's models, hence the alias.
    schema_: Mapping[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Lenient):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Function(Lenient):
    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.\-]+$")
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


class Tool(Lenient):
    type: Literal["function"]
    function: Function


class Sampled(Lenient):
    """What chat and plain completions share."""

    model: str | None = Field(default=None, description="a name from /v1/models, with or without `:strategy`")
    n: int | None = Field(default=None, ge=1, le=128, description="choices; each runs the strategy once")
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, max_length=1_024
    )
    seed: int | None = Field(default=None, ge=-INT64, le=INT64 - 1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, max_length=16)
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning: dict[str, Any] | None = Field(
        default=None, description='`{"strategy": NAME, …}` with the keys of that strategy: /v1/strategies'
    )
    budget: Budget | None = None


class ChatRequest(Sampled):
    messages: list[Any] = Field(min_length=1, max_length=4_096)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="bounds each path")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[str] | None = None


class CompletionRequest(Sampled):
    prompt: Any = Field(description="a text, a list of texts, or token ids of one or several prompts")
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=20)


def chat_request(values: Mapping[str, Any]) -> ChatRequest:
    """The body as a ChatRequest. Raises RequestError (400) that names the field."""
    for name, why in REFUSED.items():
        if values.get(name) is not None:
            raise RequestError(f"{name}: {why}", param=name, code="unsupported_parameter")
    body = validated(ChatRequest, values)
    check_sampled(body)
    if body.modalities is not None and body.modalities != ["text"]:
        raise RequestError("modalities: only ['text']", param="modalities", code="unsupported_parameter")
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs: needs logprobs: true", param="top_logprobs", code="invalid_value")
    for key, value in (body.chat_template_kwargs or {}).items():
        if key != "enable_thinking" or not isinstance(value, bool):
            name = f"chat_template_kwargs.{key}"
            raise RequestError(
                f"{name}: only enable_thinking: true or false", param=name, code="invalid_value"
            )
    _check_format(body)
    _check_tools(body, values)
    return body


def completion_request(values: Mapping[str, Any]) -> CompletionRequest:
    """The body of `POST /v1/completions`. Raises RequestError (400) that names the field."""
    for name in ("reasoning", "budget", "suffix", "best_of", "prompt_logprobs"):
        if values.get(name) is not None:
            raise RequestError(
                f"{name}: not offered for plain completions; strategies are asked for at /v1/chat/completions",
                param=name,
                code="unsupported_parameter",
            )
    body = validated(CompletionRequest, values)
    check_sampled(body)
    if body.echo and body.logprobs is not None:
        raise RequestError(
            "logprobs: not offered with echo; log-probabilities of the prompt are not told",
            param="logprobs",
            code="unsupported_parameter",
        )
    return body


def check_sampled(body: Sampled) -> None:
    """Rules between fields that chat and plain completions share."""
    stops = stop_strings(body)
    if len(stops) > 4:
        raise RequestError(f"stop: at most 4 strings, got {len(stops)}", param="stop", code="invalid_value")
    if any(not stop or len(stop) > 256 for stop in stops):
        raise RequestError("stop: strings of 1 to 256 characters", param="stop", code="invalid_value")
    if body.stream_options is not None and not body.stream:
        raise RequestError(
            "stream_options: only with stream: true", param="stream_options", code="invalid_value"
        )
    for key in body.logit_bias or {}:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise RequestError(
                f"logit_bias: {key[:40]!r} is not a token id", param="logit_bias", code="invalid_value"
            )


def stop_strings(body: Sampled) -> tuple[str, ...]:
    """`stop` as a tuple, whichever form it came in."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _check_format(body: ChatRequest) -> None:
    wanted = body.response_format
    if wanted is None or wanted.type != "json_schema":
        return
    where = "response_format.json_schema"
    if wanted.json_schema is None:
        raise RequestError(
            f"{where}: is required for type json_schema", param=where, code="missing_parameter"
        )
    schema = wanted.json_schema.schema_
    if deeper_than(schema, SCHEMA_DEPTH):
        raise RequestError(f"{where}: deeper than {SCHEMA_DEPTH} levels", param=where, code="invalid_value")
    if len(str(schema)) > SCHEMA_BYTES:
        raise RequestError(f"{where}: longer than {SCHEMA_BYTES} bytes", param=where, code="invalid_value")


def _check_tools(body: ChatRequest, values: Mapping[str, Any]) -> None:
    for i, tool in enumerate(body.tools or ()):
        size = len(str(tool.function.parameters or ""))
        if size > SCHEMA_BYTES or deeper_than(tool.function.parameters, SCHEMA_DEPTH):
            where = f"tools.{i}.function.parameters"
            raise RequestError(
                f"{where}: over {SCHEMA_BYTES} bytes or {SCHEMA_DEPTH} levels",
                param=where,
                code="invalid_value",
            )
    choice = body.tool_choice
    if choice is None:
        return
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise RequestError(
                f"tool_choice: none, auto, required or a function, not {choice[:40]!r}",
                param="tool_choice",
                code="invalid_value",
            )
        if choice == "required" and not body.tools:
            raise RequestError(
                "tool_choice: required without tools", param="tool_choice", code="invalid_value"
            )
        return
    function = as_object(choice.get("function")) or {}
    name = function.get("name") if choice.get("type") == "function" else None
    names = [tool.function.name for tool in body.tools or ()]
    if name not in names:
        raise RequestError(
            f"tool_choice: names no function of tools; one of: {', '.join(names) or 'none given'}",
            param="tool_choice",
            code="invalid_value",
        )
