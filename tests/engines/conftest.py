"""Checkpoints shared by the engine tests, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import write_model


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-qwen3")
