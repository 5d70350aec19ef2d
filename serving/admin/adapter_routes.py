"""`POST /v1/adapters` and `DELETE /v1/adapters/{name}`: the operator's routes, and what they may read.

Nothing outside the folders of the setting `adapters_dir` is opened, symbolic links followed. What lies outside is
refused in the same words whether it is there or not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from reason_engine.engines.checkpoint.adapter_files import CONFIG, WEIGHTS
from reason_engine.errors import RequestError
from reason_engine.profile import FILE
from reason_engine.serving.api.errors import Refused
from reason_engine.serving.api.openapi import body_of, inlined
from reason_engine.serving.api.routes import model_entry
from reason_engine.serving.api.validation import read_object, validated
from reason_engine.serving.guard.access import Keys
from reason_engine.serving.service import Service
from reason_engine.settings import LOOPBACK, Settings


class AdapterRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="the model name under which clients ask for it")
    path: str = Field(
        min_length=1, max_length=4_096, description="its folder, relative to an allowed one or below it"
    )
    replace: bool = Field(default=False, description="let a loaded adapter of that name make way")


def adapter_routes(service: Service) -> APIRouter:
    """Load and unload while serving."""
    router = APIRouter()
    operators = Operators(service.settings)

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
        return model_entry(service, body.name)

    @router.delete(
        "/v1/adapters/{name:path}", response_model=None, summary="Unload an adapter (operator key)"
    )
    async def unload(request: Request, name: str) -> dict[str, Any]:
        """New requests get 404 from now on; answers when those that run with it have ended."""
        operators.check(request)
        service.gate.check()
        await service.adapters.unload(name)
        return {"id": name, "object": "model", "deleted": True}

    return router


class Operators:
    """Who may change a server. Without any key it is on loopback, and everyone there may."""

    def __init__(self, settings: Settings) -> None:
        self._keys = Keys(key.get_secret_value() for key in settings.operator_keys)
        self._any = not settings.operator_keys and not settings.api_keys and settings.host in LOOPBACK
        self._some = bool(settings.operator_keys)

    def check(self, request: Request) -> None:
        """Raises Refused (403) for a client's key."""
        headers = request.scope["headers"]
        if self._any or (self._some and self._keys.allow(request.scope["path"], headers)):
            return
        how = "send that" if self._some else "this server has none: set REASON_OPERATOR_KEYS"
        raise Refused(403, f"adapters are changed with an operator key; {how}", "operator_key_required")


def allowed_folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder, links resolved. Raises RequestError kinds (403 outside `roots`, 404 where there is none)."""
    if not roots:
        raise Refused(
            403,
            "path: this server loads no adapters while it runs; start it with --adapters-dir DIR",
            "adapters_disabled",
            param="path",
        )
    try:
        homes = [root.resolve() for root in roots]
        found = [target for home in homes if (target := (home / path).resolve()).is_relative_to(home)]
        folder = next((target for target in found if target.is_dir()), None)
    except (OSError, RuntimeError, ValueError):  # too long, a circle of links, a zero byte
        raise RequestError("path: not a path", param="path", code="invalid_value") from None
    if not found:
        raise Refused(
            403, "path: not below an allowed folder (adapters_dir)", "path_not_allowed", param="path"
        )
    if folder is None:
        raise Refused(404, f"path: no folder {path[:200]!r} there", "adapter_not_found", param="path")
    for name in (CONFIG, WEIGHTS, FILE):
        _check_file(folder / name, homes)
    return folder


def _check_file(file: Path, homes: Sequence[Path]) -> None:
    """A plain file inside, or none at all: a link out is not followed, and a pipe would never end."""
    if not os.path.lexists(file):
        return
    try:
        real = file.resolve()
    except (OSError, RuntimeError):
        real = file
    if not any(real.is_relative_to(home) for home in homes):
        raise Refused(
            403, f"path: {file.name} is a link out of the allowed folders", "path_not_allowed", param="path"
        )
    if not real.is_file():
        raise RequestError(f"path: {file.name} is not a plain file", param="path", code="invalid_adapter")
