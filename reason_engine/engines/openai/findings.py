"""What is known of the endpoints of one engine: found at start, asked again where it stayed open, and told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from reason_engine.engines.openai.abilities import Abilities
from reason_engine.engines.openai.asking import answers, assumed
from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.kinds import Found
from reason_engine.engines.openai.upstream import Upstream
from reason_engine.model_info import ModelInfo

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds after which a question that was not answered is asked again."""

log = logging.getLogger("reason_engine.engines.openai")


class Findings:
    """`found`: the kind of server; `abilities`: what it can do."""

    def __init__(self, config: OpenAIConfig, now: Callable[[], float]) -> None:
        self.found, self.abilities = Found(), Abilities()
        self._config, self._now, self._ask_at, self._asked = config, now, 0.0, 0
        self._model, self._info = "", ModelInfo("", "", 0)
        self._asking: asyncio.Task[None] | None = None

    async def begin(self, upstream: Upstream, found: Found, model: str, info: ModelInfo) -> None:
        """Ask one endpoint for all."""
        self.found, self._model, self._info = found, model, info
        self.abilities = assumed(self._config, found)
        await self._ask(upstream)

    def ask_again(self, upstream: Upstream) -> None:
        """Put the questions that are still open once more, from time to time, beside what runs."""
        if self.abilities.open and self._now() >= self._ask_at and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(upstream))

    async def asked(self) -> None:
        """Wait until the questions that are out have been answered."""
        if self._asking:
            await asyncio.wait([self._asking])

    async def close(self) -> None:
        if self._asking:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def learn(self, *, most_samples: int) -> None:
        """What came out while it worked."""
        self.abilities = replace(self.abilities, most_samples=most_samples)

    def report(self, upstreams: Sequence[Upstream], context: int) -> dict[str, tuple[bool, str]]:
        """Everything known, by subject: whether it is there, and in words."""
        found, told = self.found, self._config.context or self.found.context
        known = found.kind != "openai"
        kind = f"{found.kind} {found.version}".strip() if known else "not recognised: OpenAI's API only"
        said = f"{context} tokens" if told else f"not told; {context} tokens are assumed"
        states = {one.name: (one.error is None, str(one.error or "answers")) for one in upstreams}
        subjects = {"server": (known, kind), "model": (True, self._model), "context": (bool(told), said)}
        return states | subjects | self.abilities.report()

    async def _ask(self, upstream: Upstream) -> None:
        if not self.abilities.open:
            return
        self.abilities = await answers(upstream, self._config, self.found, self._model, self._info, self.abilities)
        if left := self.abilities.open:
            self._ask_at = self._now() + min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._asked)
            self._asked += 1
            log.info("%s could not be asked yet about: %s", upstream.name, ", ".join(sorted(left)))
