"""The drafter that vLLM loads, called as its model runner calls it."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reason_engine.engines import draft_sources as sources
from reason_engine.engines.vllm.drafter import SamDrafter

CONTEXT = 200


def made(most: int = 8) -> SamDrafter:
    config = SimpleNamespace(
        speculative_config=SimpleNamespace(num_speculative_tokens=most),
        model_config=SimpleNamespace(max_model_len=CONTEXT),
        device_config=SimpleNamespace(device="cpu"),
    )
    return SamDrafter(config)


class Runner:
    """Texts that grow as vLLM's would: by the drafted tokens that are right, and one more."""

    def __init__(self, drafter: SamDrafter, prompts: list[list[int]], answers: list[list[int]]) -> None:
        self.drafter, self.answers = drafter, answers
        self.prompts, self.texts = prompts, [list(prompt) for prompt in prompts]
        self.drafts: list[list[int]] = [[] for _ in prompts]
        self.accepted = self.drafted = self.steps = 0

    def step(self, order: list[int]) -> None:
        """One step of the rows in this order; a row that has nothing left stands still, as one whose prompt is read."""
        sampled: list[list[int]] = []
        for row in order:
            done = len(self.texts[row]) - len(self.prompts[row])
            left = self.answers[row][done:]
            right = next((i for i, t in enumerate(self.drafts[row]) if left[i : i + 1] != [t]), len(self.drafts[row]))
            gained = left[: right + 1]
            self.accepted += min(right, len(gained))
            self.drafted += len(self.drafts[row])
            self.texts[row] += gained
            sampled.append(gained)
        table = np.zeros((len(order), CONTEXT), dtype=np.int32)
        lengths = np.array([len(self.texts[row]) for row in order], dtype=np.int32)
        for place, row in enumerate(order):
            table[place, : lengths[place]] = self.texts[row]
        for row, draft in zip(order, self.drafter.propose(sampled, lengths, table), strict=True):
            self.drafts[row] = draft
        self.steps += 1

    def run(self, rng: random.Random | None = None) -> None:
        """To the end; with `rng` rows change places and some are left out of a step."""
        while any(len(t) < len(p) + len(a) for t, p, a in zip(self.texts, self.prompts, self.answers, strict=True)):
            order = list(range(len(self.texts)))
            if rng:
                rng.shuffle(order)
                order = order[: rng.randint(1, len(order))]
            self.step(order)


PHRASE = [11, 12, 13, 14, 15, 16, 17, 18]


def test_what_repeats_is_drafted() -> None:
    runner = Runner(made(), [[1, 2, *PHRASE, 3]], [[5, *PHRASE, 6, *PHRASE, 7]])
    runner.run()
    assert runner.accepted > 7
    assert runner.steps < 13


def test_rows_that_move_keep_their_texts() -> None:
    rng = random.Random(1)
    prompts = [[row, *PHRASE, row] for row in range(4)]
    answers = [[rng.randrange(20, 200) for _ in range(12)] * 4 for _ in range(4)]
    still, moving = Runner(made(), prompts, answers), Runner(made(), prompts, answers)
    still.run()
    moving.run(rng)
    assert moving.texts == still.texts == [p + a for p, a in zip(prompts, answers, strict=True)]
    assert moving.accepted > 60
    assert sum(map(len, moving.drafter._rows.values())) == 4


def test_samples_of_one_prompt_draft_from_one_another() -> None:
    answer = list(range(50, 90))
    drafter = made()
    first = Runner(drafter, [[1, 2, 3]], [answer])
    first.run()
    assert first.accepted == 0
    second = Runner(drafter, [[1, 2, 3]], [answer])
    second.run()
    assert second.accepted > 25
    stranger = Runner(drafter, [[1, 2, 4]], [answer])
    stranger.run()
    assert stranger.accepted == 0


def test_nothing_is_drafted_beyond_the_context_or_for_rows_without_a_token() -> None:
    drafter = made()
    text = (PHRASE * 30)[: CONTEXT - 2]
    table = np.zeros((2, CONTEXT), dtype=np.int32)
    table[0, : len(text)] = text
    drafts = drafter.propose([text[-1:], []], np.array([len(text), 0], dtype=np.int32), table)
    assert [len(draft) for draft in drafts] == [1, 0]


def test_a_row_that_throws_goes_on_without_drafts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drafter = made()
    calls: list[int] = []

    def thrown(self: Any) -> int:
        calls.append(1)
        raise ZeroDivisionError("here")

    monkeypatch.setattr(sources.Sam, "find", thrown)
    runner = Runner(drafter, [[1, 2, *PHRASE]], [PHRASE * 3])
    runner.run()
    assert runner.texts == [[1, 2, *PHRASE, *PHRASE * 3]]
    assert (len(calls), drafter.failures, runner.drafted) == (1, 1, 0)
    assert "ZeroDivisionError: here" in caplog.text


def test_a_little_is_drafted_where_little_is_right() -> None:
    rng = random.Random(2)
    prompt = [rng.randrange(3) for _ in range(60)]
    runner = Runner(made(), [prompt], [[rng.randrange(3) for _ in range(120)]])
    runner.run()
    assert runner.drafted < 120


def test_an_ngrams_match_is_as_long_as_what_agrees() -> None:
    index = sources.Ngram()
    index.feed([9, 1, 2, 3, 4, 5, 8, 1, 2, 3, 4])
    assert (index.find(), index.draft(3)) == (4, [5, 8, 1])
    prompt = sources.Ngram()
    prompt.feed([1, 2, 3, 4, 5, 6, 7])
    of_prompt = sources.Ngram(prompt)
    of_prompt.feed([2, 3, 4])
    assert (of_prompt.find(), of_prompt.draft(9)) == (3, [5, 6, 7])
    of_prompt.feed([0])
    assert (of_prompt.find(), prompt.tokens) == (0, [1, 2, 3, 4, 5, 6, 7])
