"""Rewards of online methods and the curriculum of their problems."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest

from reason_engine.data.formats.rows import Reference
from reason_engine.errors import SetupError
from reason_engine.profile import Profile
from reason_engine.recipes.puzzles import Countdown
from reason_engine.training.online.environment import (
    BatchRewards,
    Curriculum,
    RewardScorer,
    TrainingProblem,
    step_places,
    training_problem,
)
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.recipe import Reward
from reason_engine.types import Message, Problem, Score, TokenLogprob
from reason_engine.types import Path as Sample
from reason_engine.verifiers import verifiers
from tests.training.online import WORDS, config


def said(text: str, answer: str | None = None, cut: int = 3) -> Sample:
    """A sample whose tokens are pieces of `cut` characters."""
    pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
    logprobs = tuple(TokenLogprob(number, piece, -0.1) for number, piece in enumerate(pieces))
    return Sample(0, "", text, tuple(range(len(pieces))), logprobs=logprobs, tokens=len(pieces), answer=answer)


def judged(rewards: list[dict[str, Any]], groups: Any, done: float = 0.0) -> BatchRewards:
    scorer = RewardScorer([Reward.model_validate(reward) for reward in rewards], Profile(step_end="\n"), None)
    return asyncio.run(scorer.score(groups, done))


def test_outcomes_are_weighted_by_family_and_by_time() -> None:
    words, game = (
        TrainingProblem(Problem("1 + 1?", reference="2"), "words"),
        training_problem(Countdown(game=1.0).example(random.Random(1))),
    )
    assert game.family == "countdown" and game.problem.reference is not None
    groups = [
        (words, [said("Answer: 2", "2"), said("Answer: 3", "3")]),
        (game, [said("x", game.problem.reference), said("y", "1 + 1 = 24")]),
    ]
    rewards = [
        {"verifier": "exact", "families": ["words"]},
        {"verifier": "countdown", "families": ["countdown"], "weight": 3.0},
        {"verifier": "length", "params": {"target": 3, "prefer": "long"}, "weight": -1.0, "last": 1.0},
    ]
    long = [1.0, 1.0, 1 / 3, 1 / 3]
    flat = [1.0, 0.0, 3.0, 0.0]
    for done, weight in ((0.0, -1.0), (0.5, 0.0), (1.0, 1.0)):
        found = judged(rewards, groups, done)
        wanted = [a + weight * b for a, b in zip(flat, long, strict=True)]
        assert [v for group in found.outcome for v in group] == pytest.approx(wanted)
        assert found.means == pytest.approx({"exact": 0.5, "countdown": 0.5, "length": sum(long) / 4})


def test_process_rewards_stand_where_their_steps_end() -> None:
    text = "2 + 2 = 4\n\n4 + 1 = 7\nAnswer: 7"
    sample = said(text, "7", cut=4)
    places = step_places(sample, "\n")
    ends = [text.index("= 4") + 3, text.index("= 7") + 3, len(text)]
    assert places == [-(-end // 4) - 1 for end in ends]
    reward = {"verifier": "process-rules", "process": True, "weight": 0.5}
    found = judged([reward], [(TrainingProblem(Problem("2 + 2 + 1?")), [sample])])
    ((weight, table),) = found.steps
    assert weight == 0.5 and [place for place, _ in table[0][0]] == places
    good, wrong, _ = (value for _, value in table[0][0])
    assert good > 0.5 > wrong
    mean = sum(value for _, value in table[0][0]) / 3
    assert found.outcome == [[0.0]] and found.totals() == [[pytest.approx(0.5 * mean)]]
    assert step_places(said(""), "\n") == []


def test_what_nobody_judged_counts_as_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    async def score(self: object, problem: object, paths: object, call: object) -> list[Score]:
        return [Score(1.0), Score(math.nan), Score(0.0)]

    monkeypatch.setattr(verifiers.get("exact"), "score", score)
    task = TrainingProblem(Problem("?", reference="1"))
    found = judged([{"verifier": "exact"}], [(task, [said("a"), said("b"), said("c")])])
    assert found.outcome == [[1.0, 0.5, 0.0]] and found.unjudged == 1


def test_a_judging_engine_judges(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.online.actor import Actor

    made = config(GrpoConfig, policy, tmp_path, judge=policy, rewards=[{"verifier": "judge"}])
    with Actor(made) as actor:
        groups = actor.sample([TrainingProblem(Problem("Why?"))], 2, "0")
        found = actor.judge(groups, 0.0)
        actor.take_weights(louder(policy))
        (again,) = actor.judge(groups, 0.0).outcome
        assert again == pytest.approx(found.outcome[0], rel=1e-4)  # the judge stays as it was
    assert all(0 < value < 1 for value in found.outcome[0])


def louder(folder: Path) -> Any:
    """The model with all its weights half as large again."""
    from reason_engine.training.common.models import load_model

    model, _ = load_model(folder)
    model.load_state_dict({name: tensor * 1.5 for name, tensor in model.state_dict().items()})
    return model


def test_a_curriculum_rises_when_a_stage_is_mastered_and_goes_on_where_it_was(tmp_path: Path) -> None:
    stages = [
        {"params": {"words": {"steps": [1, 1]}}, "until": 0.5},
        {"params": {"words": {"steps": [2, 2]}}, "until": 2.0, "steps": 3},
    ]
    made = config(GrpoConfig, tmp_path, tmp_path, mixture=WORDS, curriculum=stages)
    curriculum = Curriculum(made)
    curriculum.record(0.2, 1)
    assert curriculum.stage == 0
    for step in range(2, 12):
        curriculum.record(0.9, step)
        if curriculum.stage:
            break
    assert curriculum.stage == 1 and step > 2  # a single good step is no mastery
    kept = curriculum.state()
    ahead = curriculum.take(4)
    again = Curriculum(made)
    again.restore(kept)
    assert again.take(4) == ahead and again.stage == 1
    for later in range(step + 1, step + 4):
        curriculum.record(0.0, later)
    assert curriculum.stage == 2
    curriculum.record(9.0, step + 9)
    assert curriculum.stage == 2


def test_tasks_of_rows() -> None:
    turns = (Message("system", "Be brief."), Message("user", "6 * 7?"))
    task = training_problem(Reference(turns, "Answer: 42", meta={"level": 3}))
    assert (task.problem.question, task.problem.reference) == ("6 * 7?", "42")
    assert task.problem.turns() == turns and task.problem.meta == {"level": 3}
    with pytest.raises(SetupError, match="user's turn"):
        training_problem(Reference((*turns, Message("assistant", "Hm")), "42"))
    from reason_engine.data import Example

    bare = training_problem(Example("Can 1 make 24?", "no", "value", history=(("Hi", "Hello"),)))
    assert bare.bare and bare.problem.reference == "no"
    assert [turn.role for turn in bare.problem.turns()] == ["user", "assistant", "user"]
