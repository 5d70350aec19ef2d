"""Work that ends with its client: when the connection goes, everything started for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from reason_engine.errors import first_error

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection before its answer was ready."""


async def gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Raises ClientGone, with the work cancelled and cleaned up, when the client leaves."""

    async def watch() -> None:
        await gone(receive)
        raise ClientGone

    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch())
            result = await work
            watcher.cancel()
        return result
    except BaseExceptionGroup as error:
        raise first_error(error) from None
