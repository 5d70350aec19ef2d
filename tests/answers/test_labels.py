"""Outputs of a real model that were read by hand. The outputs are not in the repository: REASON_RECORDS names them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from reason_engine.answers import Equality
from tests.bench.reading import LABELS, labelled


def test_labels_are_well_formed() -> None:
    rows = [json.loads(line) for line in LABELS.read_text("utf-8").splitlines()]
    assert len(rows) == 200 and sum(row["aside"] for row in rows) == 100
    assert len({(row["row"], row["output"]) for row in rows}) == 200
    assert all(set(row) == {"row", "output", "sha256", "read", "aside"} for row in rows)


async def test_outputs_read_as_by_hand() -> None:
    records = os.environ.get("REASON_RECORDS")
    if not records:
        pytest.skip("REASON_RECORDS names no file of outputs")
    equality = Equality()
    try:
        finished, _ = await labelled(Path(records), False, equality)
    finally:
        await equality.close()
    assert finished.right / finished.of >= 0.98
