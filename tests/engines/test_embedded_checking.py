"""Drafts checked by drawing: the same tokens as one at a time, and the distribution of the model."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reason_engine.engines.embedded.sampling.sampler import Sampler
from reason_engine.types import Sampling

VOCAB, PROMPT = 60, [3, 9, 27]
PLAIN = Sampling(temperature=0.9)
KINDS = {
    "mixed": [Sampling(temperature=0.0), PLAIN, replace(PLAIN, temperature=1.0)],
    "greedy": [Sampling(temperature=0.0)] * 3,
    "truncated": [replace(PLAIN, top_k=9), replace(PLAIN, top_p=0.7), replace(PLAIN, min_p=0.1)],
    "penalised": [replace(PLAIN, frequency_penalty=1.0), PLAIN, replace(PLAIN, repetition_penalty=1.7)],
    "present": [replace(PLAIN, presence_penalty=2.0, logprobs=2), replace(PLAIN, logit_bias=((4, 3.0),)), PLAIN],
}  # fmt: skip


class Grammar:
    """After an even number an odd one must come, and the other way round."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def allowed(self, vocab: int) -> Any:
        return (torch.arange(vocab) % 2 != self.last % 2).numpy()

    def ahead(self, tokens: list[int], vocab: int) -> list[Any]:
        return [Grammar(last).allowed(vocab) for last in (self.last, *tokens)]


def sampler(samplings: list[Sampling], rows: list[list[int]], matchers: list[Any] | None = None) -> Sampler:
    ids = [[*PROMPT, *row] for row in rows]
    seeds, prompts = list(range(len(rows))), [len(PROMPT)] * len(rows)
    none = [None] * len(rows)
    return Sampler(samplings, seeds, ids, prompts, matchers or none, VOCAB, torch.device("cpu"))


def logits(row: int, text: list[int]) -> Tensor:
    """Of a model that looks at the row, the place and the last token."""
    generator = torch.Generator().manual_seed(1000 * row + 50 * len(text) + text[-1] if text else row)
    return torch.randn(VOCAB, generator=generator) * 2


def one_by_one(samplings: list[Sampling], tokens: int, grammar: bool) -> tuple[list[list[int]], list[Any]]:
    matchers: list[Any] = [Grammar() if grammar and row == 1 else None for row in range(3)]
    drawing, made, raw = sampler(samplings, [[], [], []], matchers), [list[int]() for _ in range(3)], []
    for _ in range(tokens):
        drawn = drawing.draw(torch.stack([logits(row, made[row]) for row in range(3)]))
        raw.append(drawn.logprobs)
        for row, token in enumerate(drawn.tokens):
            made[row].append(token)
            if matchers[row]:
                matchers[row].last = token
    return made, raw


@pytest.mark.parametrize("grammar", [False, True], ids=["free", "grammar"])
@pytest.mark.parametrize("kind", KINDS)
def test_checked_drafts_give_what_is_drawn_one_by_one(kind: str, grammar: bool) -> None:
    expected, raw = one_by_one(KINDS[kind], 24, grammar)
    rng = random.Random(0)
    matchers: list[Any] = [Grammar() if grammar and row == 1 else None for row in range(3)]
    drawing, made = sampler(KINDS[kind], [[], [], []], matchers), [list[int]() for _ in range(3)]
    right = wrong = 0
    while min(map(len, made)) < 18:
        drafts: list[list[int]] = []
        for row in range(3):
            draft = expected[row][len(made[row]) :][: rng.randrange(5)]
            if draft and rng.random() < 0.4:
                at = rng.randrange(len(draft))
                draft[at:] = [(draft[at] + 2) % VOCAB, *draft[at + 1 :]]
            drafts.append(draft)
        if rng.random() < 0.3:  # a plain step between
            drawn = drawing.draw(torch.stack([logits(row, made[row]) for row in range(3)])).tokens
            gained = [[token] for token in drawn]
        else:
            rows = [logits(r, made[r] + d[:i]) for r, d in enumerate(drafts) for i in range(len(d) + 1)]
            checked = drawing.check(torch.stack(rows), drafts)
            gained = [one.tokens for one in checked]
            right += sum(one.right for one in checked)
            wrong += sum(len(d) - one.right for d, one in zip(drafts, checked, strict=True))
            if raw[0] is not None:
                for row, one in enumerate(checked):
                    assert one.logprobs == [step[row] for step in raw[len(made[row]) :][: len(one.tokens)]]
        for row, tokens in enumerate(gained):
            made[row] += tokens
            if matchers[row]:
                matchers[row].last = made[row][-1]
        for row in range(3):  # what lies beyond the table is not compared
            assert made[row][:24] == expected[row][: len(made[row])]
        if max(map(len, made)) > 18:
            break
    assert right > 3
    assert wrong > 0


def test_what_is_kept_follows_the_models_distribution() -> None:
    """Two drafted tokens, one likely and one not: over many seeds every continuation comes as often as it should."""
    count, vocab = 20_000, 4
    torch.manual_seed(0)
    tables = [torch.randn(vocab), torch.randn(vocab), torch.randn(vocab)]
    p = [table.softmax(-1) for table in tables]
    draft = [int(p[0].argmax()), int(p[1].argmin())]
    drawing = Sampler(
        [Sampling()] * count, list(range(count)), [PROMPT] * count, [3] * count, [None] * count, vocab,
        torch.device("cpu"),
    )  # fmt: skip
    made = drawing.check(torch.stack(tables).repeat(count, 1), [draft] * count)
    seen: dict[tuple[int, ...], int] = {}
    for one in made:
        seen[tuple(one.tokens)] = seen.get(tuple(one.tokens), 0) + 1
    expected: dict[tuple[int, ...], float] = {}
    for first in range(vocab):
        if first != draft[0]:
            expected[(first,)] = float(p[0][first])
            continue
        for second in range(vocab):
            both = float(p[0][first] * p[1][second])
            if second != draft[1]:
                expected[first, second] = both
            else:
                expected |= {(first, second, third): both * float(p[2][third]) for third in range(vocab)}
    assert set(seen) <= set(expected)
    chi = sum((seen.get(key, 0) - count * p) ** 2 / (count * p) for key, p in expected.items())
    assert chi < 26.2  # 10 outcomes, 9 degrees of freedom: exceeded once in 500 times
