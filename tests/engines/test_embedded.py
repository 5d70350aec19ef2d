"""The embedded engine beyond the contract: batching, prefixes, memory, sampling."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import RequestError
from reason_engine.runtime.solve import solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Limits, Problem, Structured
from tests.engines.contract import GREEDY, WARM, Sample, read, request, together
from tests.models import write_model

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_more_samples_than_rows_are_served_in_turn(engine: Embedded, tiny_qwen3: Path) -> None:
    sampling = replace(WARM, max_tokens=20)
    samples = await read(engine, request("turn", sampling, n=17))
    assert [s.tokens for s in samples] == [20] * 17
    wide = Embedded(tiny_qwen3, inline=True)
    await wide.start()
    assert [s.text for s in await read(wide, request("turn", sampling, n=17))] == [s.text for s in samples]
    await wide.close()


async def test_rows_that_end_at_different_steps_leave_the_others_text_alone(engine: Embedded, tiny_qwen3: Path) -> None:
    """A row that leaves makes another one move: its text must be what it is when nothing moves."""
    asked = [
        request(f"{chr(97 + i)}: of its own length", replace(GREEDY, max_tokens=4 + 7 * (i * 5 % 12)))
        for i in range(12)
    ]
    alone = [(await read(engine, one))[0].text for one in asked]
    wide = Embedded(tiny_qwen3, inline=True)
    await wide.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(wide, one)) for one in asked]
    await wide.close()
    assert [task.result()[0].text for task in tasks] == alone


async def test_rows_set_back_for_memory_go_on_with_the_same_text(engine: Embedded, tiny_qwen3: Path) -> None:
    sampling = replace(WARM, max_tokens=150)
    expected = await read(engine, request("memory", sampling, n=4))
    cell = 2 * 2 * 2 * 16 * 4
    tight = Embedded(tiny_qwen3, inline=True, cache_bytes=4 * 128 * cell)
    await tight.start()
    samples = await read(tight, request("memory", sampling, n=4))
    await tight.close()
    assert [s.text for s in samples] == [s.text for s in expected]
    assert sum(s.prompt_tokens for s in samples) == sum(s.prompt_tokens for s in expected)


async def test_a_repeated_prompt_is_read_from_the_cache(engine: Embedded) -> None:
    prompt = "a prompt that nobody asked before, long enough for a few blocks"
    [first] = await read(engine, request(prompt))
    [second] = await read(engine, request(prompt))
    assert first.cached_tokens < 8
    assert second.cached_tokens == second.prompt_tokens - 1
    assert second.text == first.text


async def test_long_prompts_are_read_in_pieces_while_others_run(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path, max_position_embeddings=2048)
    made = Embedded(folder, inline=True)
    await made.start()
    long = "long " * 300
    [alone] = await read(made, request(long))
    await made.close()
    made = Embedded(folder, inline=True)
    await made.start()
    both = await together(made, [request("short", replace(WARM, max_tokens=50), n=2), request(long)])
    await made.close()
    assert alone.prompt_tokens == 1500
    assert both[1][0].text == alone.text


async def test_penalties_work_against_repetition(engine: Embedded) -> None:
    def repeats(sample: Sample) -> int:
        return len(sample.ids) - len(set(sample.ids))

    long = replace(GREEDY, max_tokens=60)
    [plain] = await read(engine, request("abc", long))
    for change in ({"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"repetition_penalty": 5.0}):
        [spread] = await read(engine, request("abc", replace(long, **change)))
        assert repeats(spread) < repeats(plain)
    [begun] = await read(engine, request("abc", replace(long, max_tokens=30, frequency_penalty=2.0)))
    [whole] = await read(engine, request("abc", replace(long, frequency_penalty=2.0)))
    assert whole.ids[:30] == begun.ids


async def test_a_neighbours_settings_change_nothing(engine: Embedded) -> None:
    """Mixed temperatures, truncation, penalties, structure and log-probabilities in one batch."""
    settings = [
        GREEDY,
        WARM,
        replace(WARM, top_p=0.5, seed=9),
        replace(WARM, frequency_penalty=1.5),
        replace(GREEDY, logprobs=3),
        replace(WARM, structured=Structured(regex="[a-d]{12}")),
    ]
    alone = [(await read(engine, request(f"p{i}", s)))[0] for i, s in enumerate(settings)]
    mixed = await together(engine, [request(f"p{i}", s) for i, s in enumerate(settings)])
    assert [m[0].text for m in mixed] == [a.text for a in alone]
    assert [len(m[0].logprobs) for m in mixed] == [0, 0, 0, 0, 12, 0]


async def test_the_stop_token_of_the_model_ends_a_sample(engine: Embedded) -> None:
    eos = 258
    forced = replace(GREEDY, ignore_eos=False, logit_bias=((eos, 100.0),))
    [sample] = await read(engine, request("end", forced))
    assert (sample.ids, sample.text, sample.finish, sample.stop_reason) == ((eos,), "", "stop", None)
    [ignored] = await read(engine, request("end", replace(forced, ignore_eos=True)))
    assert (ignored.tokens, ignored.finish, ignored.text) == (12, "length", "")


async def test_the_same_id_twice_is_refused_and_the_first_goes_on(engine: Embedded) -> None:
    asked = request("p", replace(GREEDY, max_tokens=100))
    first = asyncio.create_task(read(engine, asked))
    while (await engine.health()).running == 0:
        await asyncio.sleep(0)
    with pytest.raises(RequestError):
        await read(engine, asked)
    assert (await first)[0].tokens == 100


async def test_usage_under_a_budget_is_the_engines_own_count(tiny_qwen3: Path) -> None:
    """Sixty-four paths share 500 tokens: what is reported is what the engine generated, cut paths included."""
    made = Embedded(tiny_qwen3, inline=True)
    await made.start()
    before = (await made.health()).generated_tokens
    strategy = SelfConsistency(n=64)
    outcome = await solve(strategy, Problem("How many?"), made, limits=Limits(tokens=500))
    after = (await made.health()).generated_tokens
    await made.close()
    assert outcome.usage.completion == after - before == 500
    assert outcome.stopped == "budget-tokens"
