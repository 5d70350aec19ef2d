"""Drafting on the embedded engine changes how fast an answer comes and never what it says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines import draft_sources as sources
from reason_engine.engines.embedded.drafting import MOST, Drafting
from reason_engine.engines.embedded.front import Embedded
from reason_engine.types import GenerateRequest, Structured
from tests.engines.contract import GREEDY, WARM, Sample, read, request, together

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = replace(WARM, max_tokens=60)
SETTINGS = {
    "greedy": replace(GREEDY, max_tokens=60),
    "warm": LONG,
    "cool": replace(LONG, temperature=0.3),
    "truncated": replace(LONG, top_p=0.8, top_k=20, min_p=0.02),
    "penalised": replace(LONG, seed=7, presence_penalty=0.5, frequency_penalty=0.5, repetition_penalty=1.2),
    "biased": replace(LONG, logit_bias=((65, 4.0), (66, 4.0))),
    "logprobs": replace(LONG, logprobs=3),
    "structured": replace(LONG, structured=Structured(regex="(ab|ba){40}")),
    "stopped": replace(LONG, temperature=0.3, stop=("a", "b", "e")),
    "ending": replace(LONG, ignore_eos=False, logit_bias=((258, 3.0),)),
}


class Oracle:
    """Knows what will be said, and now and then something wrong."""

    def __init__(self, known: Sequence[Sequence[int]], prompt: Sequence[int], seed: int) -> None:
        self.known, self.prompt, self.rng = known, len(prompt), random.Random(seed)
        self.said: list[int] = []

    def feed(self, tokens: Sequence[int]) -> None:
        self.said += tokens

    def find(self) -> int:
        return MOST

    def draft(self, count: int) -> list[int]:
        fits = [list(one[len(self.said) :]) for one in self.known if list(one[: len(self.said)]) == self.said]
        draft = next((rest for rest in fits if rest), [7])[: self.rng.randint(0, min(count, 9))]
        if draft and self.rng.random() < 0.5:
            draft[self.rng.randrange(len(draft))] = self.rng.randrange(250)
        return draft


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def drafting(tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    made = Embedded(tiny_qwen3, inline=True, max_rows=6, draft="sam")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is drafted is checked, at any length and at any time."""
    monkeypatch.setattr(Drafting, "_close_window", lambda *_: None)
    monkeypatch.setattr(Drafting, "pays", lambda *_: True)
    monkeypatch.setattr(Drafting, "_lengths", lambda *_: (MOST, [0.0] * (MOST + 1)))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, eager: None) -> list[tuple[int, ...]]:
    """What the oracle knows, to be filled in."""
    answers: list[tuple[int, ...]] = []

    def oracle(self: Any, prompt: tuple[int, ...]) -> Oracle:
        return Oracle(answers, prompt, len(prompt))

    monkeypatch.setattr(sources.SearchIndex, "sam", oracle)
    return answers


def drafted(samples: list[Sample]) -> tuple[int, int]:
    chunks = [chunk for sample in samples for chunk in sample.chunks]
    return sum(c.draft_accepted for c in chunks), sum(c.draft_rejected for c in chunks)


def shown(samples: list[Sample]) -> list[tuple[Any, ...]]:
    return [(s.ids, s.text, s.finish, s.stop_reason, s.tokens) for s in samples]


@pytest.mark.parametrize("name", SETTINGS)
async def test_any_draft_gives_the_same_answer(drafting: Embedded, known: list[tuple[int, ...]], name: str) -> None:
    plain = replace(SETTINGS[name], draft="none")
    expected = await read(drafting, request("abcab", plain, n=3))
    assert drafted(expected) == (0, 0)
    known += [sample.ids for sample in expected]
    samples = await read(drafting, request("abcab", SETTINGS[name], n=3))
    assert shown(samples) == shown(expected)
    accepted, rejected = drafted(samples)
    assert accepted > 10
    assert rejected > 0
    for one, other in zip(samples, expected, strict=True):
        assert [(p.token_id, p.token, len(p.top)) for p in one.logprobs] == [
            (p.token_id, p.token, len(p.top)) for p in other.logprobs
        ]
        assert [p.logprob for p in one.logprobs] == pytest.approx([p.logprob for p in other.logprobs], abs=1e-4)


async def test_rows_of_every_kind_share_a_step(drafting: Embedded, known: list[tuple[int, ...]]) -> None:
    """Some draft, some do not; they end at different steps and wait for one another's rows."""
    asked = [request(f"p{i}", s, n=2) for i, s in enumerate(SETTINGS.values())]
    plain = [replace(one, id=f"{one.id}-plain", sampling=replace(one.sampling, draft="none")) for one in asked]
    expected = await together(drafting, plain)
    known += [sample.ids for group in expected for sample in group]
    mixed = [
        replace(one, sampling=replace(one.sampling, draft="none")) if i % 3 == 0 else one for i, one in enumerate(asked)
    ]
    groups = await together(drafting, mixed)
    assert [shown(group) for group in groups] == [shown(group) for group in expected]
    assert [drafted(group)[0] > 0 for group in groups] == [i % 3 != 0 for i in range(len(asked))]


async def test_rows_set_back_for_memory_go_on_with_the_same_text(
    tiny_qwen3: Path, drafting: Embedded, known: list[tuple[int, ...]]
) -> None:
    sampling = replace(WARM, max_tokens=150)
    expected = await read(drafting, request("memory", replace(sampling, draft="none"), n=4))
    known += [sample.ids for sample in expected]
    cell = 2 * 2 * 2 * 16 * 4
    tight = Embedded(tiny_qwen3, inline=True, cache_bytes=4 * 128 * cell, draft="sam")
    await tight.start()
    samples = await read(tight, request("memory", sampling, n=4))
    await tight.close()
    assert shown(samples) == shown(expected)
    assert drafted(samples)[0] > 50


async def test_a_continuation_and_a_cached_prefix_change_nothing(
    drafting: Embedded, known: list[tuple[int, ...]]
) -> None:
    whole = replace(GREEDY, max_tokens=60)
    [expected] = await read(drafting, request("begun and continued", replace(whole, draft="none")))
    known += [expected.ids, expected.ids[30:]]
    [begun] = await read(drafting, request("begun and continued", replace(whole, max_tokens=30)))
    prompt = (*drafting.tokenize("begun and continued"), *begun.ids)
    [rest] = await read(drafting, request(prompt, replace(whole, max_tokens=30)))
    assert begun.ids + rest.ids == expected.ids
    assert rest.cached_tokens >= 40


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_no_more_tokens_than_were_asked_for(drafting: Embedded, known: list[tuple[int, ...]], limit: int) -> None:
    [long] = await read(drafting, request("limit", replace(GREEDY, max_tokens=40, draft="none")))
    known.append(long.ids)
    before = (await drafting.health()).generated_tokens
    samples = await read(drafting, request("limit", replace(GREEDY, max_tokens=limit), n=3))
    assert [(s.ids, s.finish) for s in samples] == [(long.ids[:limit], "length")] * 3
    assert (await drafting.health()).generated_tokens == before + 3 * limit


async def test_an_aborted_sample_leaves_the_others_text_alone(drafting: Embedded, known: list[tuple[int, ...]]) -> None:
    sampling = replace(WARM, max_tokens=200)
    expected = await read(drafting, request("abort", replace(sampling, draft="none"), n=3))
    known += [sample.ids for sample in expected]
    asked = request("abort", sampling, n=3)
    samples = [Sample() for _ in range(3)]
    async for chunk in drafting.generate(asked):
        samples[chunk.index].add(chunk)
        if chunk.index == 0 and chunk.finish_reason is None:
            await drafting.abort(asked.id, 0)
    assert samples[0].ids == expected[0].ids[: len(samples[0].ids)]
    assert shown(samples[1:]) == shown(expected[1:])


@pytest.mark.parametrize("method", ["sam", "ngram"])
async def test_each_method_drafts_what_repeats(drafting: Embedded, eager: None, method: Any) -> None:
    again = replace(GREEDY, max_tokens=80, logit_bias=tuple((c, 6.0) for c in range(64, 68)))
    plain = await read(drafting, request("abab", replace(again, draft="none"), n=2))
    samples = await read(drafting, request("abab", replace(again, draft=method), n=2))
    assert shown(samples) == shown(plain)
    accepted, rejected = drafted(samples)
    assert accepted > rejected


async def test_a_search_drafts_from_what_its_other_requests_wrote(drafting: Embedded, eager: None) -> None:
    hot = replace(WARM, max_tokens=40, seed=11)
    accepted: list[int] = []
    for search in ("s", "s", "other"):
        asked = GenerateRequest(f"kin-{len(accepted)}", "something that was not asked before", 1, hot, search=search)
        accepted.append(drafted(await read(drafting, asked))[0])
    assert accepted[1] > 25
    assert accepted[2] < 15


async def test_given_texts_are_drafted_from(drafting: Embedded, eager: None) -> None:
    hot = replace(WARM, max_tokens=40, seed=12)
    plain = await read(drafting, request("what the documents say", replace(hot, draft="none")))
    await drafting.draft_from([[1, 2, 3], list(plain[0].ids)])
    samples = await read(drafting, request("what the documents say", hot))
    assert shown(samples) == shown(plain)
    assert drafted(samples)[0] > 25
    await drafting.draft_from([])
    assert drafted(await read(drafting, request("what the documents say", hot)))[0] < 15


async def test_a_drafter_that_throws_turns_itself_off(
    drafting: Embedded, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await read(drafting, request("thrown", replace(LONG, draft="none"), n=4))
    before = (await drafting.health()).draft_failures
    finds: list[int] = []

    def thrown(self: Any) -> int:
        finds.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(sources.Sam, "find", thrown)
    samples = await read(drafting, request("thrown", LONG, n=4))
    assert shown(samples) == shown(expected)
    assert drafted(samples) == (0, 0)
    assert (await drafting.health()).draft_failures == before + 1
    assert len(finds) == 1
    monkeypatch.undo()
    await read(drafting, request("thrown", LONG))
    assert (await drafting.health()).draft_failures == before + 1
