"""The vLLM engine on the CPU build: text, seeds, stops, log-probabilities, prefixes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.types import Message, Sampling
from tests.engines.vllm.tiny import EOS, GREEDY, MARKS, ids, run, text
from tests.strategies.reuse import SEARCHES, reads_its_prompt_once, search

pytestmark = MARKS


async def test_tells_what_it_is(engine: VllmEngine, folder: Path) -> None:
    assert (engine.info.name, engine.info.path, engine.info.context) == ("tiny", str(folder), 2048)
    assert engine.info.fingerprint.startswith("vllm-0.")
    assert engine.caps.exact_budget
    assert engine.caps.continuation
    health = await engine.health()
    assert (health.ready, health.live, health.running) == (True, True, 0)


async def test_streams_deltas_and_counts_every_token(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    chunks = await run(engine, n=3, sampling=replace(GREEDY, temperature=1.0, seed=3))
    assert [len(ids(chunks, index)) for index in range(3)] == [12, 12, 12]
    assert all(chunk.token_count == len(chunk.token_ids) for chunk in chunks)
    assert sum(chunk.token_count for chunk in chunks) == 36
    assert (await engine.health()).generated_tokens - before == 36
    assert len(chunks) > 12
    assert [(c.index, c.prompt_tokens) for c in chunks if c.prompt_tokens] == [(0, 5)]
    assert next(c for c in chunks if c.index == 0).prompt_tokens == 5
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"] * 3


async def test_greedy_is_the_same_again_in_a_batch_and_in_samples(engine: VllmEngine) -> None:
    alone = await run(engine)
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(run(engine, f"other {i}", id=f"o{i}")) for i in range(4)]
        again = group.create_task(run(engine, n=3))
    assert ids(again.result(), 0) == ids(again.result(), 1) == ids(again.result(), 2) == ids(alone)
    assert [c.prompt_tokens for c in again.result() if c.prompt_tokens] == [5]
    assert len({ids(other.result()) for other in others}) > 1


async def test_sample_i_draws_with_seed_plus_i(engine: VllmEngine) -> None:
    hot = replace(GREEDY, temperature=1.0, seed=40)
    together = await run(engine, n=3, sampling=hot)
    for index in range(3):
        assert ids(await run(engine, sampling=replace(hot, seed=40 + index))) == ids(together, index)
    assert len({ids(together, index) for index in range(3)}) == 3


async def test_a_crowd_of_seeded_samples_is_read_whole(engine: VllmEngine) -> None:
    """Sixty new prompts at once are more tokens than one step takes: none may be read in parts on the CPU."""
    sampling = replace(GREEDY, temperature=1.0, seed=5, max_tokens=4)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(run(engine, f"crowd {i} " * 12, id=f"crowd{i}", n=16, sampling=sampling))
            for i in range(4)
        ]
    assert all(len(ids(task.result(), 15)) == 4 for task in tasks)
    assert (await engine.health()).ready


async def test_the_end_token_is_counted_and_not_shown(engine: VllmEngine) -> None:
    chunks = await run(engine, sampling=Sampling(temperature=0.0, logit_bias=((EOS, 100.0),)))
    assert (ids(chunks), text(chunks)) == ((EOS,), "")
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == ("stop", None)
    ignored = await run(engine, sampling=replace(GREEDY, logit_bias=((EOS, 100.0),)))
    assert (ids(ignored), ignored[-1].finish_reason) == ((EOS,) * 12, "length")


async def test_stop_strings_end_the_text_before_them(engine: VllmEngine) -> None:
    hot = Sampling(temperature=1.0, seed=1, max_tokens=60, ignore_eos=True)
    whole = text(await run(engine, sampling=hot))
    stop = next(whole[at : at + 3] for at in range(10, 50) if whole[at : at + 3].isascii())
    before = whole[: whole.index(stop)]
    chunks = await run(engine, sampling=replace(hot, stop=("never", stop)))
    assert (text(chunks), chunks[-1].finish_reason, chunks[-1].stop_reason) == (before, "stop", stop)
    kept = await run(engine, sampling=replace(hot, stop=(stop,), include_stop=True))
    assert text(kept) == before + stop
    assert len(ids(chunks)) < 60


async def test_stop_tokens_are_named(engine: VllmEngine) -> None:
    hot = Sampling(temperature=1.0, seed=1, max_tokens=60, ignore_eos=True)
    whole = ids(await run(engine, sampling=hot))
    chunks = await run(engine, sampling=replace(hot, stop_token_ids=(whole[20],)))
    assert ids(chunks) == whole[: whole.index(whole[20]) + 1]
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == ("stop", whole[20])


async def test_logprobs_are_the_models_own(engine: VllmEngine) -> None:
    chunks = await run(engine, sampling=replace(GREEDY, logprobs=3))
    places = [place for chunk in chunks for place in chunk.logprobs]
    assert [place.token_id for place in places] == list(ids(chunks))
    for place in places:
        assert len(place.top) == 3
        assert place.top[0][0] == place.token_id
        assert place.top[0][2] == place.logprob >= place.top[1][2] >= place.top[2][2]
    bare = await run(engine, sampling=replace(GREEDY, logprobs=0))
    assert all(chunk.logprobs[0].top == () for chunk in bare)
    assert [c.logprobs[0].logprob for c in bare] == pytest.approx([place.logprob for place in places], abs=1e-4)
    assert not any(chunk.logprobs for chunk in await run(engine))


async def test_a_path_is_continued_where_it_ended(engine: VllmEngine) -> None:
    prompt = tuple(engine.tokenize(engine.render_chat([Message("user", "hello")])))
    whole = ids(await run(engine, prompt))
    first = ids(await run(engine, prompt, sampling=replace(GREEDY, max_tokens=5)))
    rest = ids(await run(engine, prompt + first, sampling=replace(GREEDY, max_tokens=7)))
    assert first + rest == whole
    assert engine.detokenize(prompt).endswith("assistant\n")


async def test_a_long_prefix_is_read_once(engine: VllmEngine) -> None:
    prompt = "y" * 700
    first = await run(engine, prompt)
    second = await run(engine, prompt + "z", n=2)
    assert (first[0].prompt_tokens, first[0].cached_tokens) == (700, 0)
    assert second[0].prompt_tokens == 701
    assert sum(chunk.cached_tokens for chunk in second) == 672  # blocks of 32


@pytest.mark.parametrize(("name", "fields"), SEARCHES)
async def test_a_search_over_steps_reads_its_prompt_once(
    engine: VllmEngine, name: str, fields: dict[str, object]
) -> None:
    await reads_its_prompt_once(engine, search(name, fields), f"{name} {sorted(fields)}")
