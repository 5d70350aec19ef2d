"""Tokens that come together where nobody reads them one by one: fewer chunks, the same text and counts."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from reason_engine.engines.vllm import requests
from reason_engine.engines.vllm.backend import ThreadBackend
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.engines.vllm.release import vllm_module
from reason_engine.types import Chunk, GenerateRequest, Sampling
from tests.engines.vllm.tiny import GREEDY, MARKS, idle, ids, read, text

pytestmark = MARKS


def asked(interval: int, n: int = 2, **changed: Any) -> GenerateRequest:
    sampling = replace(GREEDY, temperature=1.0, seed=4, max_tokens=20, **changed)
    return GenerateRequest("r", "hello", n, sampling, interval=interval)


def counts(chunks: list[Chunk], index: int) -> list[int]:
    return [chunk.token_count for chunk in chunks if chunk.index == index]


async def test_they_are_the_same_tokens_in_fewer_chunks(engine: VllmEngine) -> None:
    for logprobs in (None, 0, 3):
        single, together = [await read(engine, asked(interval, logprobs=logprobs)) for interval in (1, 8)]
        for index in range(2):
            assert counts(single, index) == [1] * 20
            assert counts(together, index) == [1, 8, 8, 3]
            assert ids(together, index) == ids(single, index)
            assert text(together, index) == text(single, index)
            places = [
                [p for chunk in some if chunk.index == index for p in chunk.logprobs] for some in (single, together)
            ]
            assert [(p.token_id, len(p.top)) for p in places[1]] == [(p.token_id, len(p.top)) for p in places[0]]
            assert [p.logprob for p in places[1]] == pytest.approx([p.logprob for p in places[0]], abs=1e-4)
        assert [chunk.finish_reason for chunk in together if chunk.finish_reason] == ["length"] * 2


async def test_a_stop_ends_a_sample_at_once(engine: VllmEngine) -> None:
    whole = ids(await read(engine, asked(1, n=1)))
    place = next(at for at in range(3, 20) if whole[at] not in whole[:at])
    chunks = await read(engine, asked(8, n=1, stop_token_ids=(whole[place],)))
    assert ids(chunks) == whole[: place + 1]
    assert chunks[-1].stop_reason == whole[place]


async def aborted_in_the_middle(engine: VllmEngine) -> None:
    """Three tokens of a thousand have come one by one, so of those that come eight at a time some are held."""
    endless = Sampling(temperature=1.0, seed=4, max_tokens=1500, ignore_eos=True)
    before = (await engine.health()).generated_tokens
    held = engine.generate(GenerateRequest("held", "hello", 2, endless, interval=1000))
    chunks = [await anext(held), await anext(held)]
    single = engine.generate(GenerateRequest("single", "other", 1, endless))
    for _ in range(20):
        await anext(single)
    await engine.abort("held", 0)
    await engine.abort("held")
    chunks += [chunk async for chunk in held]
    await single.aclose()  # pyright: ignore[reportAttributeAccessIssue]
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["abort"] * 2
    for index in range(2):
        first, *rest = counts(chunks, index)
        assert first == 1
        assert sum(rest) >= 15
    assert (await engine.health()).generated_tokens - before >= sum(chunk.token_count for chunk in chunks) + 20


async def test_an_abort_brings_what_was_held(engine: VllmEngine) -> None:
    await aborted_in_the_middle(engine)
    assert await idle(engine)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # AsyncLLM leaves a ZeroMQ context to the collector
async def test_so_it_does_from_a_process_of_its_own(folder: Any) -> None:
    apart = VllmEngine(VllmConfig(model=str(folder), dtype="float32", mode="async"))
    await apart.start()
    try:
        await aborted_in_the_middle(apart)
        assert counts(await read(apart, asked(8, logprobs=2)), 1)[0] == 1
    finally:
        await apart.close()


def test_what_is_asked_of_vllm_costs_nothing_that_is_not_wanted() -> None:
    plain = requests.sampling_params(Sampling(), index=0, room=9, eos_ids=())
    made = (plain.top_p, plain.top_k, plain.temperature, plain.logprobs, plain.flat_logprobs, plain.stream_interval)
    assert made == (1.0, 0, 1.0, None, False, None)
    wanted = Sampling(logprobs=0, top_p=0.9, top_k=5)
    told = requests.sampling_params(wanted, index=2, room=9, eos_ids=(), interval=8)
    assert (told.logprobs, told.flat_logprobs, told.stream_interval, told.seed) == (0, True, 8, 2)
    assert (told.top_p, told.top_k, told.max_tokens) == (0.9, 5, 9)


async def test_samples_of_one_request_begin_in_one_step() -> None:
    backend, done = ThreadBackend(), list[tuple[str, Any]]()
    backend._llm = SimpleNamespace(
        add_request=lambda id, *_, **__: done.append(("add", id)),
        abort_request=lambda ids: done.append(("abort", ids[0])),
    )
    params = requests.sampling_params(GREEDY, index=0, room=9, eos_ids=())

    async def drawn(id: str) -> None:
        async with aclosing(backend.generate(id, [1], params, lora=None, priority=0)) as outputs:
            await anext(outputs)

    tasks = [asyncio.create_task(drawn(id)) for id in "abc"]
    while backend._calls.empty():
        await asyncio.sleep(0)
    assert backend._calls.qsize() == 1
    backend._make_calls(wait=True)
    assert done == [("add", "a"), ("add", "b"), ("add", "c")]

    late = asyncio.create_task(drawn("d"))
    while not backend._together:
        await asyncio.sleep(0)
    late.cancel()  # before it was posted: it is added first and then aborted
    while backend._calls.qsize() < 2:
        await asyncio.sleep(0)
    backend._make_calls(wait=True)
    assert done[3:] == [("add", "d"), ("abort", "d")]
    for task in tasks:
        task.cancel()
    while backend._calls.qsize() < 3:
        await asyncio.sleep(0)
    backend._make_calls(wait=True)
    await asyncio.wait([*tasks, late])


def test_a_rank_that_nobody_asked_for_is_not_counted(engine: VllmEngine) -> None:
    import torch

    gather = vllm_module("v1.sample.sampler").Sampler.gather_logprobs
    logprobs = torch.randn(3, 50).log_softmax(-1)
    tokens = torch.tensor([4, 0, 49])
    alone, with_two = gather(logprobs, 0, tokens), gather(logprobs, 2, tokens)
    assert alone.logprob_token_ids.tolist() == [[4], [0], [49]]
    assert torch.equal(alone.logprobs, with_two.logprobs[:, :1])
    assert alone.logprobs.tolist() == [[logprobs[row, token].item()] for row, token in enumerate((4, 0, 49))]
    assert alone.selected_token_ranks.tolist() == [1, 1, 1]
    assert with_two.selected_token_ranks.tolist() == [
        int((logprobs[row] >= logprobs[row, token]).sum()) for row, token in enumerate((4, 0, 49))
    ]


async def test_no_token_of_a_log_probability_is_decoded_by_vllm(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(vllm_module("v1.engine.logprobs"), "convert_ids_list_to_tokens", decoded)
    places = [place for chunk in await read(engine, asked(8, n=1, logprobs=2)) for place in chunk.logprobs]
    assert len(places) == 20
    assert all(place.token == engine._words.text_of(place.token_id) for place in places)
