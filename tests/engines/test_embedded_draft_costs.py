"""Whether drafts pay: what is learnt of a step's cost, and what is looked for and checked because of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from reason_engine.engines.embedded import drafting
from reason_engine.engines.embedded.drafting import PAUSE, WINDOW, DraftCostModel, Drafting, SampleDrafter
from reason_engine.engines.embedded.messages import Generate
from reason_engine.types import Sampling

CPU = torch.device("cpu")
STEP = 0.02


def test_a_line_is_learnt_from_checked_steps() -> None:
    costs, rng = DraftCostModel(), random.Random(0)
    costs.observe_plain(4, STEP)
    for _ in range(300):
        drafted = rng.randint(1, 20)
        costs.observe_plain(4, STEP * rng.uniform(0.9, 1.1))
        costs.observe_checked(4, drafted, (STEP + 0.001 + 0.0004 * drafted) * rng.uniform(0.97, 1.03))
    assert costs.plain(4) == pytest.approx(STEP, rel=0.1)
    assert costs.extra == pytest.approx(0.0004, rel=0.25)
    assert costs.fixed == pytest.approx(0.001, abs=0.0008)


def test_an_interruption_weighs_little() -> None:
    costs = DraftCostModel()
    costs.observe_plain(1, STEP)
    costs.observe_plain(1, 100 * STEP)
    assert costs.plain(1) <= 1.1 * STEP
    before = costs.fixed + 4 * costs.extra
    costs.observe_checked(1, 4, 100 * STEP)
    assert costs.fixed + 4 * costs.extra < before + 3 * STEP
    assert costs.extra <= STEP


def test_numbers_of_rows_that_were_not_seen_are_as_their_neighbours() -> None:
    costs = DraftCostModel()
    assert costs.plain(3) == 0.0
    costs.observe_plain(2, 0.01)
    costs.observe_plain(16, 0.05)
    assert (costs.plain(3), costs.plain(40), costs.plain(16)) == (0.01, 0.05, 0.05)


class OneSample:
    """A sample as drafting sees it, which says `answer`."""

    def __init__(self, made: Drafting, answer: list[int], draft: Any = "sam", prompt: tuple[int, ...] = (1, 2, 3)):
        self.answer, self.ids, self.prompt = answer, list(prompt), len(prompt)
        request = made.open(Generate(f"r{id(answer)}", prompt, 1, Sampling(draft=draft)))
        self.drafter = SampleDrafter(request, self.ids, len(prompt), 10_000, None) if request else None

    def step(self, made: Drafting, plain: float = STEP, token: float = 0.0002) -> int:
        """One step as the scheduler does it, at these costs; how many drafted tokens were checked."""
        left = self.answer[len(self.ids) - self.prompt :]
        drafts = made.plan([self.drafter], 10_000)
        if drafts is None:
            made.observe_plain(1, plain)
            self.ids += left[:1]
            return 0
        [draft] = drafts
        right = next((i for i, t in enumerate(draft) if left[i : i + 1] != [t]), len(draft))
        made.observe_checked([self.drafter], drafts, [right], plain + token * len(draft))
        self.ids += left[: right + 1]
        return len(draft)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock on which every look takes `clock[1]` seconds."""
    made = [0.0, 0.0]

    def now(_: torch.device) -> float:
        made[0] += made[1]
        return made[0]

    monkeypatch.setattr(drafting, "now", now)
    return made


def test_what_repeats_is_checked_and_drafts_grow_with_the_match(clock: list[float]) -> None:
    made = Drafting(CPU)
    phrase = list(range(10, 40))
    row = OneSample(made, phrase * 6)
    counts = [row.step(made) for _ in range(80) if len(row.ids) < 180]
    assert max(counts) >= 16
    assert len(counts) < 70
    first = next(i for i, n in enumerate(counts) if n)
    assert counts[first] <= 4


@pytest.mark.parametrize("draft", ["none", "default"])
def test_a_row_that_does_not_draft_has_no_drafter(draft: str) -> None:
    assert OneSample(Drafting(CPU), [], draft).drafter is None
    assert OneSample(Drafting(CPU, "ngram"), [], "default").drafter is not None


def test_little_is_lost_where_a_token_costs_a_step(clock: list[float]) -> None:
    """Drafts are right there, and cheap at first sight, but win nothing."""
    made = Drafting(CPU)
    row = OneSample(made, [7, 8, 9] * 60)
    drafted = sum(row.step(made, STEP, token=STEP) for _ in range(100))
    gained = len(row.ids) - row.prompt
    assert (100 + drafted) / gained < 1.1


def test_nothing_is_checked_where_drafts_are_wrong(clock: list[float]) -> None:
    made, rng = Drafting(CPU), random.Random(4)
    row = OneSample(made, [rng.randrange(12) for _ in range(2000)])
    counts = [row.step(made) for _ in range(1000)]
    assert sum(counts[:300]) > 0
    assert sum(counts[-500:]) < 60


def test_looking_that_does_not_pay_pauses_longer_and_longer(clock: list[float]) -> None:
    clock[1] = STEP / 10
    made, rng = Drafting(CPU), random.Random(3)
    row = OneSample(made, [rng.randrange(10_000) for _ in range(2000)])
    looked: list[bool] = []
    for _ in range(1000):
        before = clock[0]
        row.step(made)
        looked.append(clock[0] > before)
    assert looked[1 : WINDOW + 1] == [True] * WINDOW
    assert not any(looked[WINDOW + 1 : WINDOW + 1 + PAUSE])
    assert sum(looked) < 200
    spent = sum(looked) * STEP / 10
    assert spent < 0.02 * 1000 * STEP


def test_a_prompt_is_taken_in_slowly(clock: list[float]) -> None:
    made = Drafting(CPU)
    prompt = tuple(range(5000))
    row = OneSample(made, list(range(100, 160)), prompt=prompt)
    row.step(made, 0.0005)
    row.step(made, 0.0005)
    assert row.drafter is not None
    assert len(row.drafter.request.search.index) < 200
    for _ in range(20):
        row.step(made, 0.0005)
    assert len(row.drafter.request.search.index) < 1500
