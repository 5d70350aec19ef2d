"""What the engine tests share: a checkpoint, made once a session, and an embedded engine in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from tests.models import write_model


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-qwen3")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    """Six rows at a time, so that more samples than that wait for their turn."""
    made = Embedded(tiny_qwen3, inline=True, max_rows=6)
    await made.start()
    yield made
    await made.close()
