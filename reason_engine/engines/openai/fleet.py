"""The endpoints of one engine: that they serve the same model, what they can do, and how they are doing.

The first one that answers decides the model, where none is named, and the kind of server; one that has neither is left
out with a note, and looked at again later. They are asked once for all what they can do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reason_engine.contracts import Health
from reason_engine.engines.openai.balance import Balance
from reason_engine.engines.openai.config import OpenAIConfig, is_openai
from reason_engine.engines.openai.findings import Findings
from reason_engine.engines.openai.kinds import Document, Found, recognise
from reason_engine.engines.openai.upstream import Upstream
from reason_engine.errors import EngineBusy, EngineDead, EngineError, UnknownModel
from reason_engine.model_info import ModelInfo

if TYPE_CHECKING:
    from httpx2 import AsyncClient

LOADING_PAUSE = 1.0
"""Seconds between two looks at an endpoint that is not ready."""
Sleep = Callable[[float], Awaitable[None]]

log = logging.getLogger("reason_engine.engines.openai")


class Fleet:
    """`model` and `findings` are known after `start`."""

    def __init__(
        self, config: OpenAIConfig, now: Callable[[], float], sleep: Sleep, http_client: AsyncClient | None = None
    ) -> None:
        self.config, self.sleep = config, sleep
        self.upstreams = tuple(Upstream(url, config, now, http_client) for url in config.urls)
        self.balance = Balance(self.upstreams)
        self.model, self.started = config.model or "", False
        self.findings = Findings(config, now)
        self._now = now

    async def start(self, info: ModelInfo) -> None:
        """Connect, agree on the model, ask what can be done; `info` has the marks of the model.

        Raises EngineError kinds where no endpoint answers, UnknownModel where none has the model.
        """
        for upstream in self.upstreams:
            upstream.connect()
        async with asyncio.TaskGroup() as group:
            tasks = {one: group.create_task(self._listed(one)) for one in self.upstreams}
        lists = {one: told for one, task in tasks.items() if not isinstance(told := task.result(), EngineError)}
        errors = [told for task in tasks.values() if isinstance(told := task.result(), EngineError)]
        if not lists:
            raise errors[0]
        fitting = {one: entry for one, listed in lists.items() if (entry := self._entry(listed))}
        if not fitting:
            names = ", ".join(str(model["id"]) for model in next(iter(lists.values()))[:8])
            raise UnknownModel(f"the endpoint has no model {self.model!r}; it has: {names}", param="model")
        leader = next(iter(fitting))
        self.model = str(fitting[leader]["id"])
        found = await self._recognised(leader, fitting[leader])
        await self.findings.begin(leader, found, self.model, info)
        for one in self.upstreams:
            if isinstance(error := tasks[one].result(), EngineError):
                one.failed(error)
            elif one is leader:
                one.checked = True
            elif error := await self._admit(one, lists[one]):
                one.failed(error)
            if one.error:
                log.warning("%s is left out for now: %s", one.name, one.error)
        self.started = True

    async def close(self) -> None:
        self.started = False
        await self.findings.close()
        for upstream in self.upstreams:
            await upstream.close()

    async def check(self, upstream: Upstream) -> None:
        """See that an endpoint which failed before serves the model now. Raises EngineError where it does not."""
        if upstream.checked or len(self.upstreams) == 1:
            return
        if error := await self._admit(upstream, await upstream.models()):
            raise error

    async def health(self) -> Health:
        """Asks every endpoint that does not rest."""
        if not self.started:
            return Health(ready=False, live=False, detail="not started")
        self.ask_again()
        alone = len(self.upstreams) == 1
        asked = [one for one in self.upstreams if alone or (one.usable and one.running == 0)]
        async with asyncio.TaskGroup() as group:
            looks = {one: group.create_task(self._look(one)) for one in asked}
        up = [one for one, look in looks.items() if look.result()]
        up += [one for one in self.upstreams if one not in looks and (one.error is None or one.busy)]
        failed = [one for one in self.upstreams if one.error]
        live = bool(up) or not failed or not isinstance(failed[0].error, EngineDead)
        if alone:
            return Health(bool(up), live, detail=str(failed[0].error) if failed else "")
        detail = "; ".join(f"{one.name}: {one.error}" for one in failed)
        return Health(bool(up), live, detail=detail, replicas=tuple(one.state for one in self.upstreams))

    def ask_again(self) -> None:
        """Have the questions that are still open put once more, where it is time."""
        if upstream := next((one for one in self.upstreams if one.usable and one.checked), None):
            self.findings.ask_again(upstream)

    @contextmanager
    def occupied(self, upstream: Upstream, samples: int) -> Iterator[None]:
        """So many samples are under way there."""
        upstream.running += samples
        try:
            yield
        finally:
            upstream.running -= samples

    async def _look(self, upstream: Upstream) -> bool:
        """Whether it answers and serves the model."""
        try:
            listed = await upstream.models()
            if not upstream.checked and (error := await self._admit(upstream, listed)):
                raise error
        except EngineBusy as error:
            upstream.full(error)
        except EngineError as error:
            upstream.failed(error)
        else:
            upstream.answered()
            return True
        return False

    async def _admit(self, upstream: Upstream, listed: list[Document]) -> EngineError | None:
        """Let it take requests, if it serves the same as the others; what is wrong with it."""
        entry = self._entry(listed)
        if entry is None:
            names = ", ".join(str(model["id"]) for model in listed[:8]) or "none"
            error = EngineError(f"it has no model {self.model!r}; it has: {names}")
        elif (kind := (await self._recognised(upstream, entry)).kind) != self.findings.found.kind:
            error = EngineError(f"it is of kind {kind}, the others are of kind {self.findings.found.kind}")
        else:
            upstream.checked = True
            upstream.answered()
            return None
        return error

    async def _listed(self, upstream: Upstream) -> list[Document] | EngineError:
        """Its model list, waited for while it says that it is still loading; or why there is none."""
        began = self._now()
        while True:
            try:
                return await upstream.models()
            except EngineBusy as error:
                pause = LOADING_PAUSE if error.pause is None else error.pause
                if self._now() + pause - began > self.config.max_wait:
                    return error
                log.info("%s: %s; it is waited for", upstream.name, error)
                await self.sleep(pause)
            except EngineError as error:
                return error

    def _entry(self, listed: list[Document]) -> Document | None:
        return next((model for model in listed if model["id"] == self.model or not self.model), None)

    async def _recognised(self, upstream: Upstream, entry: Document) -> Found:
        if is_openai(upstream.url):
            return Found()
        found = await recognise(entry, upstream.look)
        return found if self.config.dialect == "auto" else replace(found, kind=self.config.dialect)
