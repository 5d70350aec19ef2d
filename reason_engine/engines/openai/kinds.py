"""Which kind of server an endpoint is, by routes that only that kind has, and what those routes tell.

    llama.cpp   GET /props            build, tokens of a slot, number of slots
    SGLang      GET /get_server_info  version, arguments (later: /server_info)
    Ollama      GET /api/version      version; /api/ps has the context of the models that are loaded
    vLLM        GET /version          version; its model list says `owned_by: vllm`, behind a router as well

A route that does not answer, or not with this, tells nothing. Anything else is an endpoint of OpenAI's API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from reason_engine.engines.openai.wire.dialects import Kind

Document = Mapping[str, Any]
Get = Callable[[str], Coroutine[Any, Any, Document]]
"""The JSON object that a path of the server's root answers with; empty where it does not."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was recognised. `context`: tokens of prompt and answer; `slots`: most samples of one call; None: not
    told."""

    kind: Kind = "openai"
    version: str = ""
    context: int | None = None
    slots: int | None = None


async def recognise(entry: Document, get: Get) -> Found:
    """The kind of server that lists this model."""
    paths = ("/props", "/get_server_info", "/server_info", "/api/version", "/api/ps", "/version")
    async with asyncio.TaskGroup() as group:
        asked = {path: group.create_task(get(path)) for path in paths}
    told = {path: task.result() for path, task in asked.items()}
    listed = _number(entry.get("max_model_len")) or _number(_inner(entry, "meta").get("n_ctx"))
    props, version = told["/props"], _text(told["/version"].get("version"))
    if settings := _inner(props, "default_generation_settings"):
        context, slots = _number(settings.get("n_ctx")), _number(props.get("total_slots"))
        return Found("llama.cpp", _text(props.get("build_info")), context or listed, slots)
    arguments = {**told["/server_info"], **told["/get_server_info"]}
    if "mem_fraction_static" in arguments or entry.get("owned_by") == "sglang":
        context = listed or _number(arguments.get("context_length"))
        return Found("sglang", _text(arguments.get("version")), context)
    if entry.get("owned_by") == "vllm":
        return Found("vllm", version, listed)
    if ollama := _text(told["/api/version"].get("version")):
        return Found("ollama", ollama, _loaded(told["/api/ps"], entry.get("id")) or listed)
    return Found(context=listed)


def _loaded(running: Document, model: object) -> int | None:
    """The context of a model that Ollama has loaded; it names one without a tag `:latest`."""
    models = running.get("models")
    for one in models if isinstance(models, list) else ():
        if isinstance(one, dict) and one.get("name") in (model, f"{model}:latest"):
            return _number(one.get("context_length"))
    return None


def _inner(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
