from __future__ import annotations

import pytest

from reason_engine.errors import UnknownName
from reason_engine.verifiers import verifiers


def test_what_is_registered() -> None:
    named = {
        "certainty", "code", "composite", "countdown", "critique", "exact", "judge", "process-rules", "reward-model",
        "satisfaction",
    }  # fmt: skip
    assert named <= set(verifiers)


def test_a_misspelt_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'countdown'"):
        verifiers.get("count-down", param="reasoning.verifier")
