"""`length`: long or short, by tokens up to a target."""

from __future__ import annotations

import pytest

from reason_engine.contracts import Call
from reason_engine.types import Path, Problem
from reason_engine.verifiers.length import Length


@pytest.mark.parametrize("prefer, wanted", [("long", [0.25, 1.0, 0.5]), ("short", [0.75, 0.0, 0.5])])
async def test_scores(prefer: str, wanted: list[float], no_call: Call) -> None:
    verifier = Length.model_validate({"target": 8, "prefer": prefer})
    paths = [Path(0, "", "x", tokens=2), Path(0, "", "x" * 90, tokens=99), Path(0, "", "four", tokens=0)]
    assert [score.value for score in await verifier.score(Problem("?"), paths, no_call)] == wanted


@pytest.mark.parametrize("params", [{"target": 0}, {"prefer": "loud"}, {"most": 3}])
def test_refuses(params: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Length.model_validate(params)
