"""A search over steps next to the embedded engine: its prompt is read once, however many steps it draws."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from tests.models import write_model
from tests.strategies.reuse import SEARCHES, reads_its_prompt_once, search

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    folder = write_model(tmp_path_factory.mktemp("long") / "tiny", max_position_embeddings=2048)
    made = Embedded(folder, inline=True)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize(("name", "fields"), SEARCHES)
async def test_a_long_prompt_is_read_once(engine: Embedded, name: str, fields: dict[str, object]) -> None:
    mark = f"{name} {sorted(fields)}"
    await reads_its_prompt_once(engine, search(name, fields), mark)
