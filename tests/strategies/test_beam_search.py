"""Beam search: what is particular to it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import RequestError, VerifierError
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.beam_search import BeamSearch
from reason_engine.types import Problem, Vote, aggregated
from reason_engine.verifiers import verifiers
from tests.strategies.story import PROFILE, QUESTION, RIGHT, WRONG, steps_judge, tell

pytestmark = pytest.mark.usefixtures(steps_judge.__name__)
__all__ = ["steps_judge"]
ASKED = Problem(QUESTION)


def mixed(prompt: str, seed: int, index: int) -> str:
    """All first steps differ; the number of a way is told again in its answer."""
    done = [line for line in prompt.rpartition("<assistant>\n")[2].split("\n") if line]
    return "\n".join((f"way {index}", "on", f"Answer: {index % 4}")[len(done) :])


async def test_steps_of_one_beam_are_one_request_and_the_best_are_kept() -> None:
    engine = Scripted(mixed)
    outcome = await solve(BeamSearch(n=8, m=4), ASKED, engine, profile=PROFILE)
    # 8 first steps; then 2 beams of 4 each, whose equal steps are one state a beam
    assert [request.n for request in engine.log] == [8, 4, 4, 4, 4]
    names = [node.name for node in outcome.trace.nodes if node.role == "span"]
    assert names == [
        "beam-search",
        "step 1",
        "beam 0",
        *["step 2", "beam 0", "beam 1"],
        *["step 3", "beam 0", "beam 1"],
    ]
    assert len(outcome.trace.nodes[1].notes["kept"]) == 2


async def test_what_the_verifier_dislikes_is_not_followed() -> None:
    outcome = await solve(BeamSearch(n=6, m=6), ASKED, Scripted(tell), profile=PROFILE)
    texts = {node.prefill + node.text for node in outcome.trace.nodes if node.role == "path"}
    assert f"{WRONG[0]}\n" in texts
    assert not any(WRONG[1] in text for text in texts)
    assert outcome.content == RIGHT[-1]


async def test_the_vote_weighs_and_best_does_not() -> None:
    voted = await solve(BeamSearch(n=6, m=3, aggregate="mean"), ASKED, Scripted(tell), profile=PROFILE)
    assert voted.answer.votes == (Vote("5", 3, 3.0), Vote("6", 3, pytest.approx(0.6)))
    assert voted.answer.confidence == pytest.approx(3 / 3.6)
    best = await solve(BeamSearch(n=6, m=3, choose="best"), ASKED, Scripted(tell), profile=PROFILE)
    assert (best.answer.value, best.answer.confidence, best.answer.votes) == ("5", 1.0, ())


async def test_a_subtree_keeps_its_best_however_bad() -> None:
    """With one place for all beams the lost way ends; in subtrees of their own both go to their end."""
    engine = Scripted(tell)
    outcome = await solve(BeamSearch(n=6, m=3, diverse=True), ASKED, engine, profile=PROFILE)
    assert {vote.answer for vote in outcome.answer.votes} == {"5", "6"}
    assert [request.n for request in engine.log] == [6, 3, 3, 3, 3]


async def test_a_beam_that_ended_keeps_its_place() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        first = prompt.endswith("<assistant>\n")
        return RIGHT[-1] if first and index == 0 else f"way {index}\non\non\non"

    engine = Scripted(reply)
    await solve(BeamSearch(n=4, m=2, depth=4), ASKED, engine, profile=PROFILE)
    # Three places are left after the first step; what has four steps is taken to its end in one go.
    assert [request.n for request in engine.log] == [4, 2, 2, 2, 1, 1]


async def test_adaptive_stops_when_no_beam_left_matters() -> None:
    def early(prompt: str, seed: int, index: int) -> str:
        """Half of the ways end at once with one answer; the other half would go on for long."""
        return f"Answer: {index % 2 * 2 + 4}" if index < 6 else "and on\n" * 20

    fields = BeamSearch(n=8, m=1, adaptive=True, confidence=0.6, depth=12)
    engine = Scripted(early)
    outcome = await solve(fields, ASKED, engine, profile=PROFILE)
    assert outcome.stopped == "done"  # two answers, level: nothing is decided
    engine = Scripted(lambda prompt, seed, index: early(prompt, seed, 0 if index < 6 else index))
    outcome = await solve(fields, ASKED, engine, profile=PROFILE)
    assert (outcome.stopped, outcome.answer.value) == ("decided", "4")
    assert engine.requests == 1


async def test_a_verifier_that_fails_on_a_path_ends_the_path() -> None:
    def fields(crash: str) -> BeamSearch:
        return BeamSearch.model_validate({"n": 6, "verifier": {"name": "steps-judge", "params": {"crash": crash}}})

    outcome = await solve(fields("4 = 7"), ASKED, Scripted(tell), profile=PROFILE)
    assert outcome.answer.value == "6"
    with pytest.raises(VerifierError, match="cannot read this"):
        await solve(fields("4 ="), ASKED, Scripted(tell), profile=PROFILE)


async def test_the_profile_names_the_verifier_where_the_request_does_not() -> None:
    outcome = await solve(BeamSearch(n=4), ASKED, Scripted(tell), profile=PROFILE)
    assert outcome.trace.nodes[0].notes["verifier"] == "steps-judge"
    outcome = await solve(BeamSearch(n=4), ASKED, Scripted(tell), profile=Profile())
    assert outcome.trace.nodes[0].notes["verifier"] == "process-rules"


async def test_a_verifier_of_whole_answers_is_refused_before_anything_runs() -> None:
    engine = Scripted(tell)
    with pytest.raises(RequestError, match=r"countdown.*These judge steps: .*steps-judge") as raised:
        await solve(BeamSearch(verifier="countdown"), Problem("Use the numbers 4 5 6 10 to make 24"), engine)
    assert raised.value.param == "reasoning.verifier"
    assert engine.requests == 0


async def test_without_any_verifier_of_steps_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: verifiers.get(name) for name in ("countdown", "certainty")}
    monkeypatch.setattr(verifiers, "_found", kept)
    engine = Scripted(tell)
    with pytest.raises(RequestError, match="these judge steps: none that is installed") as raised:
        await solve(BeamSearch(), ASKED, engine)
    assert raised.value.param == "reasoning.verifier"
    assert engine.requests == 0


@pytest.mark.parametrize(("how", "value"), [("last", 0.5), ("min", 0.2), ("product", 0.08), ("mean", 0.5)])
def test_scores_of_steps_become_one(how: str, value: float) -> None:
    assert aggregated([0.8, 0.2, 0.5], how) == pytest.approx(value)  # pyright: ignore[reportArgumentType]
    assert aggregated([], how) == 0.0  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"m": 65}, {"aggregate": "max"}, {"choose": "first"}, {"depth": 0}, {"b": 1}]
)
def test_bad_fields_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BeamSearch.model_validate(bad)
