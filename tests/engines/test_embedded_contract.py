"""The embedded engine keeps the contract of all engines, in a thread and in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from tests.engines.contract import EngineContract

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["thread", "process"])
async def engine(request: pytest.FixtureRequest, tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    made = Embedded(tiny_qwen3, inline=request.param == "thread")
    await made.start()
    yield made
    await made.close()


class TestEmbedded(EngineContract):
    pass
