"""What the routes say about themselves in /openapi.json; bodies are read by hand, so their schemas stand here."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from reason_engine.serving.api.schema import ChatRequest, CompletionRequest

ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
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
    status: {"description": why, "content": {"application/json": {"schema": ERROR}}}
    for status, why in WHY.items()
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


def _chat() -> dict[str, Any]:
    schema = inlined(ChatRequest)
    schema["properties"]["messages"]["items"] = MESSAGE
    both = {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    return {**body_of(schema), "responses": {"200": {"description": "the answer", "content": both}}}


CHAT = _chat()
COMPLETION = {**CHAT, **body_of(inlined(CompletionRequest))}
