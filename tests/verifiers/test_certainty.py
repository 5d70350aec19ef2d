from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call, Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Path, Problem, TokenLogprob
from reason_engine.verifiers.certainty import Certainty, entropy, mean_logprob, self_certainty
from tests.verifiers.conftest import Build


def token(*probabilities: float) -> TokenLogprob:
    """A token that drew its first alternative."""
    logs = [math.log(p) for p in probabilities]
    return TokenLogprob(0, "x", logs[0], tuple((i, "x", lp) for i, lp in enumerate(logs)))


def test_mean_logprob_is_the_geometric_mean() -> None:
    assert mean_logprob([token(0.5), token(0.125)]) == pytest.approx(0.25)
    assert mean_logprob([]) is None


def test_self_certainty_by_hand() -> None:
    # one place, two alternatives of 0.5 and 0.125: c = (ln 2 + ln 8) / 2 = 2 ln 2
    c = 2 * math.log(2)
    assert self_certainty([token(0.5, 0.125)]) == pytest.approx(c / (1 + c))
    assert self_certainty([TokenLogprob(0, "x", -1.0)]) is None


def test_entropy_by_hand() -> None:
    assert entropy([token(0.5, 0.5)]) == pytest.approx(0.5)
    assert entropy([token(0.5, 0.25)]) == pytest.approx(math.exp(-1.5 * math.log(2)))  # a quarter is unrecorded
    assert entropy([token(1.0)]) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", ["mean-logprob", "self-certainty", "entropy"])
async def test_the_surer_path_wins_within_bounds(measure: str, no_call: Call) -> None:
    sure = Path(0, "", "", tokens=2, logprobs=(token(0.98, 0.01), token(0.97, 0.01)))
    torn = Path(1, "", "", tokens=2, logprobs=(token(0.5, 0.4), token(0.4, 0.3)))
    empty = Path(2, "", "")
    verifier = Certainty.model_validate({"measure": measure})
    a, b, c = await verifier.score(Problem("?"), [sure, torn, empty], no_call)
    assert 1 >= a.value > b.value > c.value == 0


async def test_minus_infinity_stays_finite(no_call: Call) -> None:
    path = Path(0, "", "", tokens=1, logprobs=(TokenLogprob(0, "x", 0.0, ((0, "x", 0.0), (1, "y", -math.inf))),))
    for measure in ("self-certainty", "entropy"):
        (score,) = await Certainty.model_validate({"measure": measure}).score(Problem("?"), [path], no_call)
        assert 0 <= score.value <= 1


@pytest.mark.parametrize(("measure", "logprobs"), [("mean-logprob", ()), ("entropy", (TokenLogprob(0, "x", -1.0),))])
async def test_an_engine_without_them_is_named(measure: str, logprobs: tuple[TokenLogprob, ...], no_call: Call) -> None:
    with pytest.raises(CapabilityMissing, match=measure):
        await Certainty.model_validate({"measure": measure}).score(
            Problem("?"), [Path(0, "", "", tokens=3, logprobs=logprobs)], no_call
        )


async def test_no_paths_no_scores(no_call: Call) -> None:
    assert await Certainty().score(Problem("?"), [], no_call) == []


@pytest.mark.parametrize("params", [{"measure": "vibes"}, {"mesure": "entropy"}])
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Certainty.model_validate(params)


@pytest.mark.parametrize(("measure", "enough"), [("mean-logprob", 0), ("self-certainty", 1), ("entropy", 1)])
def test_what_the_engine_lacks_is_said_before_a_token_is_spent(measure: str, enough: int, build: Build) -> None:
    build("certainty", {"measure": measure}, caps=Capabilities(logprobs=enough))
    with pytest.raises(CapabilityMissing, match=measure) as caught:
        build("certainty", {"measure": measure}, caps=Capabilities(logprobs=enough - 1))
    assert caught.value.param == "reasoning.verifier.params.measure"


@pytest.mark.parametrize("measure", ["self-certainty", "entropy"])
async def test_alternatives_are_drawn_where_the_measure_reads_them(measure: str) -> None:
    engine = Scripted(lambda prompt, seed, index: "Answer: 1")
    strategy = {"n": 2, "verifier": {"name": "certainty", "params": {"measure": measure}}}
    outcome = await solve(BestOfN.model_validate(strategy), Problem("?"), engine)
    assert outcome.answer.value == "1"
    assert [request.sampling.logprobs for request in engine.log] == [20]
