"""The routes beside generation: models, strategies, traces, adapters, tokens, health, metrics, version."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reason_engine import __version__
from reason_engine.serving.adapters import allowed_folder
from reason_engine.serving.api.errors import Refused, invalid, read_object, schema_of, validated
from reason_engine.serving.api.messages import read_messages
from reason_engine.serving.api.schema import Lenient, Strict, body_of, inlined, split_model
from reason_engine.serving.guard.access import OperatorKeys
from reason_engine.serving.service import Service
from reason_engine.strategies import strategies
from reason_engine.types import Message

MOST_TOKENS = 1_000_000


class AdapterRequest(Strict):
    name: str = Field(min_length=1, description="the model name under which clients ask for it")
    path: str = Field(min_length=1, max_length=4_096, description="its folder, relative to an allowed one or below it")
    replace: bool = Field(default=False, description="let a loaded adapter of that name make way")


class TokenizeRequest(Lenient):
    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = Field(default=None, min_length=1)


class DetokenizeRequest(Lenient):
    model: str | None = None
    tokens: list[int] = Field(max_length=MOST_TOKENS)


def model_routes(router: APIRouter, service: Service) -> None:
    """What can be asked for: models and strategies; and what was done: traces."""

    @router.get("/v1/models", response_model=None, summary="Models, each alone and with every strategy")
    async def models() -> dict[str, Any]:
        suffixes = ("", *(f":{name}" for name in strategies))
        names = [f"{model}{suffix}" for model in (service.name, *service.adapters.loaded) for suffix in suffixes]
        return {"object": "list", "data": [_model_entry(service, name) for name in names]}

    @router.get("/v1/models/{name:path}", response_model=None, summary="One model")
    async def model(name: str) -> dict[str, Any]:
        split_model(name, service.name, service.adapters.loaded)
        return _model_entry(service, name)

    @router.get("/v1/strategies", response_model=None, summary="Strategies with the schema of their options")
    async def all_strategies() -> dict[str, Any]:
        data: list[dict[str, Any]] = []
        for name in strategies:
            kind = strategies.get(name)
            data.append({"name": name, "summary": kind.summary, "paper": kind.paper, "schema": schema_of(kind)})
        return {"object": "list", "data": data}

    @router.get("/v1/traces/{response_id}", response_model=None, summary="The trace of a recent response")
    async def trace(response_id: str) -> dict[str, Any]:
        found = service.traces.get(response_id)
        if found is None:
            why = f"no trace of {response_id[:80]!r}; the last {service.settings.traces} responses are kept"
            raise Refused(404, why, "trace_not_found", param="response_id")
        return found.to_json()


def adapter_routes(router: APIRouter, service: Service) -> None:
    """Load and unload adapters while serving."""
    operators = OperatorKeys(service.settings)

    @router.post(
        "/v1/adapters",
        openapi_extra=body_of(inlined(AdapterRequest)),
        response_model=None,
        summary="Load an adapter (operator key)",
    )
    async def load(request: Request) -> dict[str, Any]:
        """From a folder below one of the setting `adapters_dir`; answers when clients can ask for it."""
        operators.check(request)
        body = validated(AdapterRequest, await read_object(request))
        service.gate.check()
        folder = await asyncio.to_thread(allowed_folder, body.path, service.settings.adapters_dir)
        await service.adapters.load(body.name, folder, service.name, replace=body.replace)
        return _model_entry(service, body.name)

    @router.delete("/v1/adapters/{name:path}", response_model=None, summary="Unload an adapter (operator key)")
    async def unload(request: Request, name: str) -> dict[str, Any]:
        """New requests get 404 from now on; answers when those that run with it have ended."""
        operators.check(request)
        service.gate.check()
        await service.adapters.unload(name)
        return {"id": name, "object": "model", "deleted": True}


def token_routes(router: APIRouter, service: Service) -> None:
    """Text to token ids and back."""

    @router.post("/tokenize", openapi_extra=body_of(inlined(TokenizeRequest)), response_model=None)
    async def tokenize(request: Request) -> dict[str, Any]:
        body = validated(TokenizeRequest, await read_object(request))
        service.gate.check()
        split_model(body.model, service.name, service.adapters.loaded)
        if body.messages is not None:
            history, question, tail = read_messages(body.messages)
            text = service.engine.render_chat((*history, Message("user", question), *tail))
        elif body.prompt is not None:
            text = body.prompt
        else:
            raise Refused(400, "prompt or messages is required", "missing_parameter", param="prompt")
        tokens = service.engine.tokenize(text)
        return {"count": len(tokens), "max_model_len": service.engine.info.context, "tokens": tokens}

    @router.post("/detokenize", openapi_extra=body_of(inlined(DetokenizeRequest)), response_model=None)
    async def detokenize(request: Request) -> dict[str, Any]:
        body = validated(DetokenizeRequest, await read_object(request))
        service.gate.check()
        split_model(body.model, service.name, service.adapters.loaded)
        try:
            return {"prompt": service.engine.detokenize(body.tokens)}
        except (IndexError, KeyError, OverflowError, TypeError, ValueError):
            raise invalid("tokens", "holds an id that this model has not") from None


def state_routes(router: APIRouter, service: Service) -> None:
    """Health, metrics and version."""

    @router.get("/health/live", response_model=None, summary="Whether waiting for this server makes sense")
    async def live() -> Response:
        found = await service.health()
        dead = service.gate.dead or (None if found.live or service.gate.loading else found.detail or "the engine died")
        return JSONResponse({"status": "dead" if dead else "live", "detail": dead or ""}, 503 if dead else 200)

    @router.get("/health", response_model=None, summary="The same as /health/ready")
    @router.get("/health/ready", response_model=None, summary="Whether requests are taken now")
    async def ready() -> Response:
        gate, found = service.gate, await service.health()
        if gate.open and found.ready:
            return JSONResponse({"status": "ready"})
        status = "dead" if gate.dead or not found.live else "draining" if gate.draining else "loading"
        return JSONResponse({"status": status, "detail": gate.dead or found.detail}, 503, {"retry-after": "1"})

    @router.get("/metrics", response_model=None, summary="Prometheus metrics")
    async def metrics() -> Response:
        text = service.metrics.text(await service.health(), service.gate.held, service.traces)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/version", response_model=None, summary="The version of this server")
    async def version() -> dict[str, str]:
        return {"version": __version__}


def _model_entry(service: Service, name: str) -> dict[str, Any]:
    """A model as `/v1/models` shows it. Raises UnknownModel."""
    adapter, strategy = split_model(name, service.name, service.adapters.loaded)
    root = adapter or service.name
    return {
        "id": name,
        "object": "model",
        "created": service.created,
        "owned_by": "reason-engine",
        "root": root,
        "parent": service.name if adapter else None,
        "max_model_len": service.engine.info.context,
        "precision": service.engine.info.precision or None,
        "strategy": strategy,
    }
