"""What every test stands on: no settings from outside, no network, and one thread each for torch.

Models are tiny here, and several tests run at once: more threads would wait for each other.
"""

from __future__ import annotations

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("REASON_"):
            monkeypatch.delenv(name)
