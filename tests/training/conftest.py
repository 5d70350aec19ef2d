"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models import write_model


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy whose words are bytes."""
    return write_model(tmp_path_factory.mktemp("policy"), scale=1.0)
