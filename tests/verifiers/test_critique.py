"""A critique before the verdict: what is written and asked, where the verdict is read, budgets, and engines that tell
no probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.solve import solve
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.types import Choice, Draw, Limits, Path, Problem
from reason_engine.verifiers.critique import STYLES, Critique, closing
from tests.verifiers.conftest import Build, NoCall, path

PROBLEM = Problem("2 + 3?")
WRITES = Capabilities(choose=False)


class Critic(NoCall):
    """Writes texts in turn; the verdict of each is a function of what stands before it."""

    def __init__(self, verdict: Callable[[str], float], *texts: str, prompt: str = "") -> None:
        self.verdict, self.texts, self.prompt = verdict, list(texts), prompt
        self.drawn: list[tuple[str | None, Draw]] = []
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]:
        self.drawn.append((prompt, draw))
        if not self.texts:
            raise BudgetExhausted("budget-tokens")
        return [replace(path(self.texts.pop(0)), prompt=self.prompt) for _ in range(draw.n)]

    async def choice(
        self,
        prompt: str,
        options: tuple[str, ...],
        *,
        prefill: str = "",
        stage: str = "choice",
        after: Path | None = None,
    ) -> Choice:
        assert after is not None
        whole = after.text + prefill
        self.asked.append((whole, options))
        yes = self.verdict(whole)
        return Choice((yes, 1 - yes))


async def test_the_verdict_is_read_after_the_critique(build: Build) -> None:
    call = Critic(lambda text: 0.9 if "right" in text else 0.2, "All is right.", "Step 2 errs.")
    scores = await build("critique").score(PROBLEM, [path("<think>x</think>It is 5."), path("It is 6.")], call)
    assert [(score.value, score.detail) for score in scores] == [(0.9, "general"), (0.2, "general")]
    assert call.asked[0] == ("All is right.\n\nJudgement: $\\boxed{", ("Yes", "No"))
    asked, draw = call.drawn[0]
    assert asked is not None and "Problem:\n2 + 3?" in asked and "solution:\nIt is 5." in asked
    assert (draw.n, draw.max_tokens, draw.stop) == (1, 1024, ("Judgement:",))


async def test_a_verdict_that_was_begun_is_gone_on_with(build: Build) -> None:
    call = Critic(lambda text: 0.7, "Fine.\nJudgement:")
    await build("critique").score(PROBLEM, [path("5")], call)
    assert call.asked[0][0] == "Fine.\nJudgement: $\\boxed{"


@pytest.mark.parametrize(
    ("prompt", "text", "closed"),
    [
        ("<think>\n", "hm", "\n</think>\n"),
        ("", "<think>hm", "\n</think>\n"),
        ("<think>\n", "hm</think>no", ""),
        ("", "no", ""),
    ],
)
async def test_an_open_thought_is_closed_first(build: Build, prompt: str, text: str, closed: str) -> None:
    call = Critic(lambda text: 0.7, text, prompt=prompt)
    await build("critique").score(PROBLEM, [path("5")], call)
    assert call.asked[0][0] == f"{text}{closed}\n\nJudgement: $\\boxed{{"
    assert closing(replace(path(text), prompt=prompt)) == closed


async def test_several_critiques_are_averaged_and_limits_are_the_requests(build: Build) -> None:
    call = Critic(lambda text: 0.9 if "right" in text else 0.3, "right", "wrong")
    params = {
        "critiques": 2,
        "critique_tokens": 64,
        "temperature": 0.5,
        "options": ["good", "bad"],
        "prompt": "{solution}!",
    }
    (score,) = await build("critique", params).score(PROBLEM, [path("5")], call)
    assert score.value == pytest.approx(0.6)
    asked, draw = call.drawn[0]
    assert (asked, draw.n, draw.max_tokens, draw.temperature) == ("5!", 2, 64, 0.5)
    assert call.asked[0][1] == ("good", "bad")


@pytest.mark.parametrize("style", ["think-prm", "gen-prm"])
async def test_trained_critics_have_their_own_words(build: Build, style: str) -> None:
    call, words = Critic(lambda text: 0.5, "checked"), STYLES[style]
    await build("critique", {"style": style}).score(PROBLEM, [path("5")], call)
    asked, draw = call.drawn[0]
    assert asked is not None and "2 + 3?" in asked
    assert (draw.prefill, draw.stop) == (words.begins, words.ends)
    assert call.asked[0][0] == "checked" + words.opening


async def test_without_probabilities_the_written_verdict_counts(build: Build) -> None:
    call = Critic(lambda text: math.nan, "Judgement: $\\boxed{Yes}$", "Judgement: $\\boxed{No}$", "I do not know.")
    judge = build("critique", caps=WRITES)
    scores = await judge.score(PROBLEM, [path("5"), path("6"), path("7")], call)
    assert [score.value for score in scores[:2]] == [1.0, 0.0] and math.isnan(scores[2].value)
    assert all(draw.stop == () for _, draw in call.drawn) and not call.asked


async def test_what_the_budget_refuses_has_no_score(build: Build) -> None:
    (known, refused) = await build("critique").score(PROBLEM, [path("5"), path("6")], Critic(lambda text: 0.8, "fine"))
    assert known.value == 0.8 and math.isnan(refused.value)
    with pytest.raises(BudgetExhausted):
        await build("critique").score(PROBLEM, [path("5")], Critic(lambda text: 0.8))


@pytest.mark.parametrize(
    "params",
    [{"critiques": 0}, {"critique_tokens": 8}, {"style": "prm"}, {"options": ["Yes"]}, {"temperature": -1}, {"x": 1}],
)
def test_parameters_out_of_range(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Critique.model_validate(params)


async def test_its_tokens_are_its_own_stage_and_the_verdict_continues_the_critique() -> None:
    seen: list[str] = []

    def choose(prompt: str, options: tuple[str, ...]) -> tuple[float, float]:
        seen.append(prompt)
        return (0.9, 0.1) if "solution:\nAnswer: 5" in prompt else (0.2, 0.8)

    def reply(prompt: str, seed: int, index: int) -> str:
        return "Looks fine.\n\nJudgement: $\\boxed{No}$" if "Go through" in prompt else f"Answer: {5 + index}"

    engine = Scripted(reply, choose=choose)
    strategy = BestOfN.model_validate({"n": 2, "verifier": {"name": "critique", "params": {"critiques": 2}}})
    outcome = await solve(strategy, PROBLEM, engine, seed=1)
    assert outcome.answer.value == "5"
    assert outcome.usage_by_stage["critique"].completion == 4 * 3
    assert outcome.usage.completion == engine.generated
    assert len(seen) == 4 and all(text.endswith("Looks fine.\n\nJudgement: $\\boxed{") for text in seen)
    cut = await solve(strategy, PROBLEM, engine, seed=1, limits=Limits(samples=4))
    assert cut.answer.path is not None
    assert cut.stopped == "budget-samples"
