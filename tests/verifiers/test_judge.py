"""A model as judge: what it is asked, both orders, ranks, and judges that write."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import VerifierError
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Choice, Draw, Limits, Path, Problem
from reason_engine.verifiers.judge import Judge, bradley_terry, fill, read, ring, solution, win_rate
from tests.verifiers.conftest import Build, NoCall, path

PROBLEM = Problem("2 + 3?")


class Asked(NoCall):
    """Answers choices by a function of the prompt, or samples by texts in turn."""

    def __init__(self, judge: Callable[[str], float] | None = None, *texts: str) -> None:
        self.judge, self.texts = judge, list(texts)
        self.prompts: list[tuple[str, tuple[str, ...]]] = []

    async def choice(
        self,
        prompt: str,
        options: tuple[str, ...],
        *,
        prefill: str = "",
        stage: str = "choice",
        after: Path | None = None,
    ) -> Choice:
        assert self.judge is not None
        self.prompts.append((prompt, options))
        yes = self.judge(prompt)
        return Choice((yes, 1 - yes))

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]:
        return [path(self.texts.pop(0)) for _ in range(draw.n)]


async def test_each_answer_by_itself_with_general_words(build: Build) -> None:
    call = Asked(lambda prompt: 0.9 if "Answer: 5" in prompt else 0.2)
    scores = await build("judge").score(PROBLEM, [path("Answer: 5"), path("Answer: 6")], call)
    assert [score.value for score in scores] == [0.9, 0.2]
    assert "Problem:\n2 + 3?" in call.prompts[0][0]
    assert call.prompts[0][1] == ("yes", "no")


async def test_the_profiles_words_and_the_requests(build: Build) -> None:
    profile = Profile(judge_prompt="{problem}\nIs\n{solution}\nright?", judge_options=("Right", "Line"))
    call = Asked(lambda prompt: 0.5)
    await build("judge", profile=profile).score(Problem("{solution}?"), [path("x {problem}")], call)
    await build("judge", {"prompt": "{solution}!"}, profile=profile).score(PROBLEM, [path("5")], call)
    assert call.prompts == [
        ("{solution}?\nIs\nx {problem}\nright?", ("Right", "Line")),  # what is filled in stays as it is
        ("5!", ("yes", "no")),
    ]
    assert fill("{problem} {other}", {"problem": "p"}) == "p {other}"
    assert solution(path("<think>5? no, 6</think>\nAnswer: 6")) == "Answer: 6"


@pytest.mark.parametrize("rank", ["win-rate", "bradley-terry"])
async def test_pairs_are_asked_in_both_orders_so_that_a_place_wins_nothing(rank: str, build: Build) -> None:
    def likes_the_first(prompt: str) -> float:
        return 0.8

    judge = build("judge", {"mode": "pairwise", "rank": rank})
    paths = [path(f"Answer: {n}") for n in range(4)]
    even = [score.value for score in await judge.score(PROBLEM, paths, Asked(likes_the_first))]
    assert even == pytest.approx([0.5] * 4)

    def likes_two(prompt: str) -> float:
        first = prompt.partition("Solution B:")[0]
        return 0.9 if "Answer: 2" in first else 0.1 if "Answer: 2" in prompt else 0.8

    call = Asked(likes_two)
    scores = [score.value for score in await judge.score(PROBLEM, paths, call)]
    assert max(range(4), key=scores.__getitem__) == 2
    assert all(0 <= value <= 1 for value in scores)
    assert len(call.prompts) == 12


def test_ranks_by_hand() -> None:
    assert win_rate({(0, 1): 1.0, (0, 2): 0.5}, 4)[:3] == [0.75, 0.0, 0.5]
    assert math.isnan(win_rate({(0, 1): 1.0}, 3)[2])
    strong, weak, alone = bradley_terry({(0, 1): 0.75}, 3)
    assert strong > 0.5 > weak
    assert strong + weak == pytest.approx(1)
    assert math.isnan(alone)
    chain = bradley_terry({(0, 1): 0.9, (1, 2): 0.9, (2, 3): 0.9}, 4)
    assert chain == sorted(chain, reverse=True)  # through those between, first and last are compared too
    assert ring(3, 9) == [(0, 1), (0, 2), (1, 2)]
    assert len(ring(16, 4)) == 64
    assert ring(1, 4) == []


async def test_a_judge_that_writes(build: Build) -> None:
    silent = Capabilities(logprobs=0)
    texts = ("It adds up. Yes", "No. Or rather yes", "no", "I cannot say")
    judge = build("judge", {"samples": 2}, caps=silent)
    scores = await judge.score(PROBLEM, [path("5"), path("6")], Asked(None, *texts))
    assert [score.value for score in scores] == [1, 0]
    (lost,) = await build("judge", caps=silent).score(PROBLEM, [path("5")], Asked(None, "who knows"))
    assert math.isnan(lost.value)
    assert read("yesterday", ("yes", "no")) is None


async def test_a_profile_whose_model_must_write_before_it_judges(build: Build) -> None:
    profile = Profile(
        judge_prompt="{problem}\n{solution}\nCheck.", judge_options=("Every line is right.", "wrong"), judge_writes=True
    )
    texts = ("1: 2 + 3 = 5; 5\nEvery line is right.\nAnswer: 5", "1: 2 + 3 = 5; 6 wrong\nAnswer: 5")
    scores = await build("judge", profile=profile).score(PROBLEM, [path("5"), path("6")], Asked(None, *texts))
    assert [score.value for score in scores] == [1, 0]
    for own in ({"verdict": "choice"}, {"prompt": "{solution}?"}, {"mode": "pairwise"}):
        reading = Asked(lambda prompt: 0.7)
        await build("judge", own, profile=profile).score(PROBLEM, [path("5"), path("6")], reading)
        assert reading.prompts


async def test_its_tokens_are_its_own_stage_and_the_budget_cuts_it() -> None:
    engine = Scripted(lambda prompt, seed, index: "yes" if "Check" in prompt else f"Answer: {seed % 3}")
    strategy = BestOfN.model_validate({"n": 3, "verifier": {"name": "judge", "params": {"verdict": "sample"}}})
    outcome = await solve(strategy, PROBLEM, engine, seed=1)
    assert outcome.usage_by_stage["judge"].completion == 6
    assert outcome.usage.completion == engine.generated
    cut = await solve(strategy, PROBLEM, engine, seed=1, limits=Limits(samples=4))
    assert cut.answer.path is not None
    assert cut.stopped == "budget-samples"


async def test_one_that_never_decides_fails_the_request_not_silently() -> None:
    engine = Scripted(lambda prompt, seed, index: "hm" if "Check" in prompt else "Answer: 1")
    strategy = BestOfN.model_validate({"n": 2, "verifier": {"name": "judge", "params": {"verdict": "sample"}}})
    with pytest.raises(VerifierError, match="no usable score"):
        await solve(strategy, PROBLEM, engine)


@pytest.mark.parametrize(
    "params", [{"mode": "triple"}, {"options": ["a"]}, {"samples": 0}, {"rivals": 65}, {"prompt": "x" * 20_001}]
)
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Judge.model_validate(params)
