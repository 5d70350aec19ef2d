"""The bodies of the generating routes: lenient towards unknown fields, strict inside `reasoning` and `budget`.

Acted on: what `ChatRequest` names. Accepted without effect: user, metadata, store, service_tier, prompt_cache_*,
safety_identifier, verbosity and every unknown field. Refused with 400: what `REFUSED` names. Bodies are read by hand,
so their part of /openapi.json stands at the end.

The first source that names a strategy wins, every other key applies to it: 1. `reasoning.strategy`; 2. the model's name
(`model:strategy`); 3. `reasoning_effort`; 4. the server's default; 5. `direct`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.errors import UnknownModel
from reason_engine.serving.api.errors import as_object, deeper_than, invalid, validated
from reason_engine.strategies import Strategy, strategies

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


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Budget(Strict):
    """The caller's budget, under the operator's caps."""

    tokens: int | None = Field(default=None, ge=1, description="generated tokens, of all branches and judges")
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="wall-clock seconds")
    samples: int | None = Field(default=None, ge=1, description="generated sequences, steps and judges included")


class StreamOptions(Lenient):
    include_usage: bool | None = Field(default=None, description="a last chunk with the usage")
    include_events: bool | None = Field(default=None, description="`reason.events` in the chunks: the live tree")


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
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1_024)
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
            raise invalid(name, why, "unsupported_parameter")
    body = validated(ChatRequest, values)
    _check_sampled(body)
    if body.modalities is not None and body.modalities != ["text"]:
        raise invalid("modalities", "only ['text']", "unsupported_parameter")
    if body.top_logprobs and not body.logprobs:
        raise invalid("top_logprobs", "needs logprobs: true")
    for key, value in (body.chat_template_kwargs or {}).items():
        if key != "enable_thinking" or not isinstance(value, bool):
            raise invalid(f"chat_template_kwargs.{key}", "only enable_thinking: true or false")
    _check_format(body)
    _check_tools(body)
    return body


def completion_request(values: Mapping[str, Any]) -> CompletionRequest:
    """The body of `POST /v1/completions`. Raises RequestError (400) that names the field."""
    for name in ("reasoning", "budget", "suffix", "best_of", "prompt_logprobs"):
        if values.get(name) is not None:
            why = "not offered for plain completions; strategies are asked for at /v1/chat/completions"
            raise invalid(name, why, "unsupported_parameter")
    body = validated(CompletionRequest, values)
    _check_sampled(body)
    if body.echo and body.logprobs is not None:
        why = "not offered with echo; log-probabilities of the prompt are not told"
        raise invalid("logprobs", why, "unsupported_parameter")
    return body


def _check_sampled(body: Sampled) -> None:
    """Rules between fields that chat and plain completions share."""
    stops = stop_strings(body)
    if len(stops) > 4:
        raise invalid("stop", f"at most 4 strings, got {len(stops)}")
    if any(not stop or len(stop) > 256 for stop in stops):
        raise invalid("stop", "strings of 1 to 256 characters")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options", "only with stream: true")
    for key in body.logit_bias or {}:
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise invalid("logit_bias", f"{key[:40]!r} is not a token id")


def stop_strings(body: Sampled) -> tuple[str, ...]:
    """`stop` as a tuple, whichever form it came in."""
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())


def _check_format(body: ChatRequest) -> None:
    wanted = body.response_format
    if wanted is None or wanted.type != "json_schema":
        return
    where = "response_format.json_schema"
    if wanted.json_schema is None:
        raise invalid(where, "is required for type json_schema", "missing_parameter")
    schema = wanted.json_schema.schema_
    if deeper_than(schema, SCHEMA_DEPTH):
        raise invalid(where, f"deeper than {SCHEMA_DEPTH} levels")
    if len(str(schema)) > SCHEMA_BYTES:
        raise invalid(where, f"longer than {SCHEMA_BYTES} bytes")


def _check_tools(body: ChatRequest) -> None:
    tools = body.tools or ()
    for i, tool in enumerate(tools):
        parameters = tool.function.parameters
        if len(str(parameters or "")) > SCHEMA_BYTES or deeper_than(parameters, SCHEMA_DEPTH):
            why = f"over {SCHEMA_BYTES} bytes or {SCHEMA_DEPTH} levels"
            raise invalid(f"tools.{i}.function.parameters", why)
    choice = body.tool_choice
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise invalid("tool_choice", f"none, auto, required or a function, not {choice[:40]!r}")
        if choice == "required" and not tools:
            raise invalid("tool_choice", "required without tools")
    elif choice is not None:
        function = as_object(choice.get("function")) or {}
        name = function.get("name") if choice.get("type") == "function" else None
        names = [tool.function.name for tool in tools]
        if name not in names:
            known = ", ".join(names) or "none given"
            raise invalid("tool_choice", f"names no function of tools; one of: {known}")


# which model and strategy ------------------------------------------------------------------------------------------
EFFORTS: tuple[Effort, ...] = get_args(Effort)
THOUGHTS = {"low": 1_024, "medium": 4_096, "high": 8_192, "xhigh": 16_384, "max": 16_384}
"""Tokens of a thought by effort."""
CLIENT_KEYS = {
    **dict.fromkeys(("effort", "summary", "generate_summary"), str),
    "max_tokens": int,
    **dict.fromkeys(("exclude", "enabled"), bool),
}
"""Keys of `reasoning` that other clients send, with their types."""


@dataclass(frozen=True, slots=True)
class StrategyChoice:
    """The strategy of a request. `think`: False turns thinking off; `thought`: tokens that the effort grants a thought
    before fewer paths are drawn. `exclude`: leave the reasoning text out."""

    name: str
    strategy: Strategy
    think: bool | None = None
    thought: int | None = None
    exclude: bool = False


def split_model(name: str | None, base: str, adapters: Collection[str]) -> tuple[str | None, str | None]:
    """(adapter, strategy) of a model name, None where it names none. Raises UnknownModel (404)."""
    if name is None or name == base:
        return None, None
    if name in adapters:
        return name, None
    head, colon, tail = name.rpartition(":")
    if colon and tail in strategies and (head == base or head in adapters):
        return (None if head == base else head), tail
    known = [f"{model}{suffix}" for model in (base, *adapters) for suffix in ("", *(f":{s}" for s in strategies))]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"this server has {', '.join((base, *adapters))}"
    raise UnknownModel(f"no model named {name[:200]!r}; {hint}", param="model", code="model_not_found")


def choose_strategy(
    reasoning: Mapping[str, Any] | None, suffix: str | None, effort: Effort | None, default: str | None
) -> StrategyChoice:
    """The strategy of a request. Raises RequestError (400) naming the key, its range and the nearest valid value."""
    options = dict(reasoning or {})
    named = options.pop("strategy", None)
    if named is not None and not isinstance(named, str):
        raise invalid("reasoning.strategy", "must be a string")
    given = {key: options[key] for key in CLIENT_KEYS if key in options}
    _check_client_keys(given)
    wanted = effort or given.get("effort") or ("none" if given.get("enabled") is False else None)
    preset: Mapping[str, Any] = {}
    if named is not None or suffix is not None:
        name = str(suffix if named is None else named)
    elif wanted in ("none", "minimal"):
        name = "direct"
    elif wanted:
        name, preset = "auto", {"effort": wanted, "n": 64 if wanted in ("xhigh", "max") else 16}
    else:
        name = default or "direct"
    kind = strategies.get(name, param="reasoning.strategy")
    if wanted and not preset and "effort" in kind.model_fields:
        preset = {"effort": wanted}
    # A strategy may have an option of the same name; then it is meant for the strategy.
    own = {key: value for key, value in options.items() if key not in given or key in kind.model_fields}
    strategy = validated(kind, {**preset, **own}, prefix="reasoning", what=f"strategy {name!r}")
    think, thought = (False if wanted == "none" else None), THOUGHTS.get(wanted or "")
    return StrategyChoice(name, strategy, think, thought, bool(given.get("exclude")))


def _check_client_keys(given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        kind = CLIENT_KEYS[key]
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise invalid(f"reasoning.{key}", f"must be a {kind.__name__}")
    effort: str | None = given.get("effort")
    if effort is not None and effort not in EFFORTS:
        near = difflib.get_close_matches(effort, EFFORTS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise invalid("reasoning.effort", f"one of {', '.join(EFFORTS)}{hint}")


# /openapi.json ----------------------------------------------------------------------------------------------------
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {key: {"type": "string"} for key in ("message", "type")}
            | {key: {"type": ["string", "null"]} for key in ("param", "code")},
        }
    },
}
MESSAGE: dict[str, Any] = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"description": "a string, or a list of parts of type text"},
    },
}
WHY = {
    "400": "the request is wrong; `param` names the field",
    "401": "no key, or a wrong one",
    "403": "Host or Origin not served",
    "404": "no such thing here",
    "405": "wrong method",
    "409": "an adapter of that name is there already",
    "413": "body too large",
    "429": "at capacity; see Retry-After",
    "500": "something failed",
    "503": "loading, draining or stopped; see Retry-After",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": why, "content": {"application/json": {"schema": ERROR}}} for status, why in WHY.items()
}


def body_of(schema: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes this JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def inlined(model: type[BaseModel]) -> dict[str, Any]:
    """A model's JSON schema with its definitions put where they are used."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, list):
            return [inline(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inline(definitions[str(value["$ref"]).rpartition("/")[2]])  # pyright: ignore[reportUnknownArgumentType]
        return {key: inline(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]

    return inline(schema)


def generation_of(model: type[Sampled]) -> dict[str, Any]:
    """The options of a route that generates, whole or streamed."""
    schema = inlined(model)
    if "messages" in schema["properties"]:
        schema["properties"]["messages"]["items"] = MESSAGE
    whole, streamed = {"schema": {"type": "object"}}, {"schema": {"type": "string"}}
    both = {"application/json": whole, "text/event-stream": streamed}
    answers = {"responses": {"200": {"description": "the answer", "content": both}}}
    return {"openapi_extra": {**body_of(schema), **answers}, "response_model": None}
