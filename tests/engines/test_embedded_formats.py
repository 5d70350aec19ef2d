"""Tools, schemas and conversations under every strategy on the embedded engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from tests.engines.formats import FormatContract
from tests.models import write_model

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    folder = write_model(tmp_path_factory.mktemp("forms"), max_position_embeddings=2048)
    made = Embedded(folder, inline=True)
    await made.start()
    yield made
    await made.close()


class TestFormats(FormatContract):
    pass
