"""Builds the HTTP application of one model: `create_app(engine, profile, settings)`.

The lifespan starts the engine in the background, so that `/health/live` answers while weights are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from reason_engine import __version__
from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Powers
from reason_engine.errors import ReasonError, first_error
from reason_engine.knowledge import Library
from reason_engine.profile import Profile
from reason_engine.runtime.trace import TraceRing
from reason_engine.serving.adapters import Adapters
from reason_engine.serving.api.chat import chat_routes
from reason_engine.serving.api.completions import completion_routes
from reason_engine.serving.api.errors import on_error, on_status
from reason_engine.serving.api.routes import adapter_routes, model_routes, state_routes, token_routes
from reason_engine.serving.api.schema import ERRORS
from reason_engine.serving.guard.access import AccessGuard, AdmissionGate, Keys, accepted_hosts
from reason_engine.serving.guard.content_guard import ContentGuard
from reason_engine.serving.guard.rules import read_rules
from reason_engine.serving.pages import page_routes
from reason_engine.serving.service import Metrics, Service
from reason_engine.settings import Settings
from reason_engine.verifiers.code import Sandbox

log = logging.getLogger("reason_engine.serving")
LAG_SECONDS = 1.0
DESCRIPTION = "OpenAI-compatible chat with test-time reasoning that the caller chooses per request."


def create_app(engine: Engine, profile: Profile | None = None, settings: Settings | None = None) -> FastAPI:
    """The application. `app.state.service` is what the routes share.

    An engine that is not ready yet is started by the lifespan, and then closed by it too; the operator's documents are
    read meanwhile. Raises SetupError where the settings name a folder that is none, or rules that cannot be followed.
    """
    settings = settings or Settings()
    metrics = Metrics()
    service = Service(
        engine,
        profile or Profile(),
        settings,
        AdmissionGate(settings.capacity),
        metrics,
        TraceRing(settings.traces),
        Equality(),
        Library(settings.knowledge, engine=engine, model=settings.knowledge_model) if settings.knowledge else None,
        Powers(Sandbox() if settings.code_execution else None, settings.satisfaction),
        Adapters(engine),
        ContentGuard(read_rules(settings.guard), engine, metrics.stopped) if settings.guard else None,
    )
    app = FastAPI(
        title="Reason Engine",
        description=DESCRIPTION,
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _lifespan(service),
        responses=ERRORS,
        redirect_slashes=False,
        exception_handlers={ReasonError: on_error, Exception: on_error, HTTPException: on_status},
    )
    app.state.service = service
    app.state.refused = service.metrics.refused
    for add_routes in (chat_routes, completion_routes, model_routes, adapter_routes, token_routes, state_routes):
        add_routes(app.router, service)
    page_routes(app.router)
    keys = Keys(key.get_secret_value() for key in (*settings.api_keys, *settings.operator_keys))
    app.add_middleware(
        AccessGuard,
        keys=keys,
        hosts=accepted_hosts(settings.host, settings.allowed_hosts),
        max_body=settings.max_body,
        refused=service.metrics.refused,
    )
    return app


@asynccontextmanager
async def _lifespan(service: Service) -> AsyncGenerator[None]:
    """Start what needs time, and stop everything that was started."""
    gate, ours = service.gate, not (await service.engine.health()).ready
    gate.loading = ours or (service.knowledge is not None and not service.knowledge.opened)
    tasks = [asyncio.create_task(_measure_lag(service))]
    if gate.loading:
        tasks.append(asyncio.create_task(_start(service, ours, tasks)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await service.equality.close()
        if ours:
            await service.engine.close()


async def _start(service: Service, ours: bool, tasks: list[asyncio.Task[None]]) -> None:
    gate, knowledge = service.gate, service.knowledge
    try:
        async with asyncio.TaskGroup() as group:
            if knowledge:
                group.create_task(knowledge.read())
            if ours:
                await _start_engine(service)
        if knowledge:
            await knowledge.embed()
            if service.settings.draft == "sam":
                tasks.append(asyncio.create_task(knowledge.offer_drafts(service.engine)))
    except Exception as error:  # a boundary: /health reports whatever keeps an engine from starting
        gate.fail(first_error(error))
    finally:
        gate.loading = False


async def _start_engine(service: Service) -> None:
    await service.engine.start()
    if found := service.engine.info.found:
        log.info("%s: %s", service.name, "; ".join(found))
    for name, path in service.settings.adapters.items():
        await service.adapters.load(name, Path(path), service.name)


async def _measure_lag(service: Service) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        service.metrics.lag.set(max(0.0, clock() - due))
