"""One engine for a whole session, on a small real chat model.

What is asserted in this folder has to hold on any model: no test may depend on what this one knows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import RequestError
from reason_engine.runtime.drawn import collect
from reason_engine.types import GenerateRequest, Sampling, Structured
from tests.real.smollm2 import Missing, checkpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The engine lives on one event loop, so its tests run on that loop too."""
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"))


def unavailable(why: str) -> None:
    """Skips, except in continuous integration: there the model has to be there. CI=true is what says so."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"the tests on a real model cannot run: {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def folder() -> Path:
    try:
        return checkpoint()
    except Missing as error:
        unavailable(str(error))
        raise


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def engine(folder: Path) -> AsyncIterator[Embedded]:
    """In bfloat16, on one thread: with short prompts and few rows, twice as fast as float32 or as two threads."""
    made = Embedded(folder, inline=True, name="smollm2", dtype="bfloat16", threads=1)
    await made.start()
    # The first constraint also pays for the tokenizer's tables, which on a busy machine takes longer than one may.
    first = Sampling(max_tokens=1, structured=Structured(json_object=True))
    with contextlib.suppress(RequestError):
        await collect(made.generate(GenerateRequest("first", "?", sampling=first)))
    yield made
    await made.close()
