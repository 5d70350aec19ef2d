"""A verifier chooses: the best path, or the answer it likes most."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import BaseModel, ValidationError

from reason_engine.contracts import Call
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import VerifierError
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers

TEXTS = ("Answer: 4", "Answer: 5", "Answer: 5", "Answer: 0.5", "Answer: 1/2")
SCORES = {"4": 0.9, "5": 0.5, "0.5": 0.6, "1/2": 0.7}


class Table(BaseModel):
    """Scores by answer, as it is written."""

    scores: dict[str, float]

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        return [Score(self.scores[path.text.removeprefix("Answer: ")], "table") for path in paths]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    list(verifiers)
    monkeypatch.setitem(verifiers._found, "table", Table)


def engine(texts: Sequence[str] = TEXTS) -> Scripted:
    drawn = iter(range(1000))
    return Scripted(lambda prompt, seed, index: texts[next(drawn) % len(texts)])


def by(scores: dict[str, float], **fields: object) -> BestOfN:
    return BestOfN.model_validate({"n": 5, "verifier": {"name": "table", "params": {"scores": scores}}, **fields})


@pytest.mark.usefixtures("table")
async def test_best_takes_the_best_path_and_vote_the_answer_of_the_highest_sum() -> None:
    best = await solve(by(SCORES), Problem("?"), engine())
    assert (best.answer.value, best.answer.confidence) == ("4", 0.9)
    assert [(v.answer, v.count) for v in best.answer.votes] == [("5", 2), ("0.5", 2), ("4", 1)]
    vote = await solve(by(SCORES, choose="vote"), Problem("?"), engine())
    assert [(v.answer, v.count, pytest.approx(v.weight)) for v in vote.answer.votes] == [
        ("0.5", 2, 1.3), ("5", 2, 1.0), ("4", 1, 0.9)]  # fmt: skip
    assert vote.answer.confidence == pytest.approx(1.3 / 3.2)
    assert vote.content == "Answer: 1/2"  # of equal answers, the path with the higher score
    assert vote.trace.nodes[0].notes["weights"][0] == ["0.5", 1.3]


@pytest.mark.usefixtures("table")
async def test_scores_beyond_one_weigh_by_their_logistic() -> None:
    scores = {"4": 3.0, "5": -8.0, "0.5": -700.0, "1/2": -2.0}
    vote = await solve(by(scores, choose="vote"), Problem("?"), engine())
    assert vote.answer.value == "4"
    assert vote.answer.votes[0].weight == pytest.approx(1 / (1 + 2.718281828459045**-3))
    best = await solve(by(scores), Problem("?"), engine())
    assert (best.answer.value, best.answer.confidence) == ("4", None)


@pytest.mark.usefixtures("table")
async def test_where_nothing_weighs_anything_the_best_path_is_taken() -> None:
    vote = await solve(by(dict.fromkeys(SCORES, 0.0), choose="vote"), Problem("?"), engine())
    assert vote.answer.value in SCORES
    assert vote.answer.votes == ()


@pytest.mark.usefixtures("table")
async def test_adaptive_stops_at_a_full_score() -> None:
    right = engine(("Answer: 5", "Answer: 5", "Answer: 5", "Answer: 4"))
    outcome = await solve(by({"5": 0.2, "4": 1.0}, n=16, adaptive=True), Problem("?"), right)
    assert (outcome.answer.value, outcome.stopped, right.samples) == ("4", "decided", 6)
    none = engine(("Answer: 5",))
    outcome = await solve(by({"5": 0.2}, n=7, adaptive=True), Problem("?"), none)
    assert (outcome.stopped, none.samples) == ("done", 7)


@pytest.mark.usefixtures("table")
async def test_adaptive_stops_once_the_weighted_vote_is_settled() -> None:
    agreed = engine(("Answer: 5",))
    outcome = await solve(by({"5": 0.3}, n=16, choose="vote", adaptive=True), Problem("?"), agreed)
    assert (outcome.answer.value, outcome.stopped, agreed.samples) == ("5", "decided", 4)


@pytest.mark.usefixtures("table")
async def test_a_verifier_that_fails_on_all_is_told() -> None:
    with pytest.raises(VerifierError):
        await solve(by({}), Problem("?"), engine())


def test_bad_fields() -> None:
    for fields in ({"choose": "worst"}, {"n": 0}, {"confidence": 1.0}, {"adaptive": "perhaps"}):
        with pytest.raises(ValidationError):
            BestOfN.model_validate(fields)


@pytest.mark.parametrize("adaptive", [False, True])
async def test_open_answers_to_what_seemed_to_want_a_number_are_looked_at_twice(adaptive: bool) -> None:
    """They were asked once more and were not sure; the first look says that the question is an open one."""
    made = Scripted(lambda p, s, i: f"Well, that depends, {'abcde'[i % 5]}.", logprob=lambda p, t: -2.0)
    question = Problem("Ann has 3 apples and buys 4 more. How many apples does she have?")
    outcome = await solve(BestOfN(n=5, adaptive=adaptive), question, made)
    assert outcome.answer.value is None
    assert outcome.content.startswith("Well, that depends")
