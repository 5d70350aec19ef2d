"""One tiny random model and one engine for all tests of vLLM: building engines is what takes time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from tests.models import write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's CPU attention wants heads of 32 at least
    return write_model(tmp_path_factory.mktemp("tiny"), head_dim=32, max_position_embeddings=2048)


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[VllmEngine]:
    made = VllmEngine(VllmConfig(model=str(folder), dtype="float32", name="tiny"))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())
