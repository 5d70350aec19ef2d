"""The scripted engine keeps the contract of all engines."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reason_engine.engines.scripted import Scripted
from tests.engines.contract import EngineContract


def reply(prompt: str, seed: int, index: int) -> str:
    start = sum(map(ord, prompt.replace("\n", " ").split(" ")[-2])) if " " in prompt else 0
    return " ".join(f"w{(start + i * 7 + (seed * 3 if seed else 0)) % 89}" for i in range(300))


@pytest.fixture
async def engine() -> AsyncIterator[Scripted]:
    made = Scripted(reply, context=512)
    await made.start()
    yield made
    await made.close()


class TestScripted(EngineContract):
    pass
