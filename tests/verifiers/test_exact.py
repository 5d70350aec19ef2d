from __future__ import annotations

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call
from reason_engine.errors import RequestError
from reason_engine.types import Path, Problem
from reason_engine.verifiers.exact import Exact
from tests.verifiers.conftest import Build


def paths(*answers: str | None) -> list[Path]:
    return [Path(i, "", "", answer=answer) for i, answer in enumerate(answers)]


async def test_equal_values_score_one(no_call: Call) -> None:
    scores = await Exact(reference="1/2").score(Problem("?"), paths("0.5", "\\frac12", "2", None), no_call)
    assert [s.value for s in scores] == [1, 1, 0, 0]


async def test_the_problems_reference_is_used_and_the_callers_wins(no_call: Call) -> None:
    problem = Problem("?", reference="7")
    assert [s.value for s in await Exact().score(problem, paths("7", "8"), no_call)] == [1, 0]
    assert [s.value for s in await Exact(reference="8").score(problem, paths("7", "8"), no_call)] == [0, 1]


async def test_no_paths_no_scores(no_call: Call) -> None:
    assert await Exact(reference="1").score(Problem("?"), [], no_call) == []


async def test_without_a_reference_it_refuses(no_call: Call) -> None:
    with pytest.raises(RequestError) as caught:
        await Exact().score(Problem("?"), paths("1"), no_call)
    assert caught.value.param == "reasoning.verifier.params.reference"


@pytest.mark.parametrize("params", [{"reference": 1.5}, {"refrence": "1"}, {"reference": "1" * 10_001}])
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Exact.model_validate(params)


def test_without_a_reference_it_refuses_before_a_token_is_spent(build: Build) -> None:
    with pytest.raises(RequestError) as caught:
        build("exact")
    assert caught.value.param == "reasoning.verifier.params.reference"
    build("exact", {"reference": "1"})
    build("exact", problem=Problem("?", reference="1"))
