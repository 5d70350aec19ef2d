"""The scripted engine beyond the contract: its counters, gates, failures and continuations."""

from __future__ import annotations

import asyncio

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineDead, EngineError, RequestError
from reason_engine.types import ChoiceRequest, Chunk, GenerateRequest, Message, Sampling, ScoreRequest


async def read(engine: Scripted, request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def text(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(c.text for c in chunks if c.index == index)


async def test_reply_sees_prompt_seed_and_index_and_tokens_are_words() -> None:
    engine = Scripted(lambda prompt, seed, index: f"{prompt} {seed} {index}")
    chunks = await read(engine, GenerateRequest("a", "p", n=2, sampling=Sampling(seed=7)))
    assert (text(chunks, 0), text(chunks, 1)) == ("p 7 0", "p 8 1")
    assert [c.text for c in chunks if c.index == 0 and c.text] == ["p", " 7", " 0"]
    assert engine.generated == 8  # three words and the end, twice
    assert (engine.requests, engine.samples, engine.peak, engine.running, engine.aborted) == (1, 2, 2, 0, 0)


async def test_a_gate_holds_every_token_and_abort_ends_the_wait() -> None:
    opened, reached = asyncio.Event(), asyncio.Event()

    async def gate(request: GenerateRequest, index: int, position: int) -> None:
        if position == 2:
            reached.set()
            await opened.wait()

    engine = Scripted(lambda prompt, seed, index: "one two three", gate=gate)
    task = asyncio.create_task(read(engine, GenerateRequest("a", "p")))
    await reached.wait()
    assert (await engine.health()).running == 1
    await engine.abort("a")
    chunks = await task
    assert (text(chunks), chunks[-1].finish_reason) == ("one two", "abort")
    assert (engine.running, engine.aborted, engine.generated) == (0, 1, 2)


async def test_a_sample_cut_by_max_tokens_goes_on_with_its_own_rest() -> None:
    calls: list[int] = []

    def reply(prompt: str, seed: int, index: int) -> str:
        calls.append(seed)
        return f"same start {seed} end"

    engine = Scripted(reply)
    prompt = tuple(engine.tokenize("p"))
    await read(engine, GenerateRequest("a", prompt, n=2, sampling=Sampling(max_tokens=2, seed=3)))
    ids = prompt + tuple(engine.tokenize("same start"))
    rest = await read(engine, GenerateRequest("b", ids, sampling=Sampling(seed=4)))
    assert text(rest) == " 4 end"
    assert calls == [3, 4]


async def test_a_script_that_fails_reaches_the_reader_and_leaves_nothing_running() -> None:
    def fail(request: GenerateRequest, index: int, position: int) -> None:
        if position == 1:
            raise EngineError("as told")

    engine = Scripted(lambda prompt, seed, index: "one two", fail=fail)
    with pytest.raises(EngineError, match="as told"):
        await read(engine, GenerateRequest("a", "p", n=3))
    assert (await engine.health()).running == 0


async def test_death_ends_open_requests_and_refuses_new_ones() -> None:
    reached = asyncio.Event()

    async def gate(request: GenerateRequest, index: int, position: int) -> None:
        reached.set()
        await asyncio.Event().wait()

    engine = Scripted(gate=gate)
    await engine.start()
    task = asyncio.create_task(read(engine, GenerateRequest("a", "p")))
    await reached.wait()
    engine.die()
    with pytest.raises(EngineDead):
        await task
    with pytest.raises(EngineDead):
        await read(engine, GenerateRequest("b", "p"))
    health = await engine.health()
    assert (health.ready, health.live, health.running) == (False, False, 0)


async def test_scores_come_from_the_function_or_not_at_all() -> None:
    scores = await Scripted(reward=lambda t: float(len(t))).score(ScoreRequest("a", ("x", "yy")))
    assert scores.values == ((1.0,), (2.0,))
    with pytest.raises(RequestError):
        await Scripted().score(ScoreRequest("a", ("x",)))


@pytest.mark.parametrize("field", ["n", "max_tokens", "options"])
async def test_bad_requests_name_the_field_and_count_nothing(field: str) -> None:
    engine = Scripted()
    with pytest.raises(RequestError) as caught:
        if field == "options":
            await engine.choose(ChoiceRequest("a", "p", ()))
        elif field == "n":
            await read(engine, GenerateRequest("a", "p", n=0))
        else:
            await read(engine, GenerateRequest("a", "p", sampling=Sampling(max_tokens=0)))
    assert caught.value.param == field
    assert (engine.requests, engine.chooses, engine.generated) == (0, 0, 0)


def test_thinking_is_opened_by_the_template_and_parsed() -> None:
    engine = Scripted(thinks=True)
    prompt = engine.render_chat([Message("user", "q")])
    parsed = engine.parse("because</think>\n42", prompt=prompt)
    assert (parsed.reasoning, parsed.content) == ("because", "42")
    assert not engine.render_chat([Message("user", "q")], think=False).endswith("<think>\n")


async def test_a_choice_of_token_ids_is_that_of_their_text() -> None:
    seen: list[str] = []

    def weights(prompt: str, options: tuple[str, ...]) -> list[float]:
        seen.append(prompt)
        return [1.0, 3.0]

    engine = Scripted(choose=weights)
    await engine.start()
    by_text = await engine.choose(ChoiceRequest("a", "which one ?", ("x", "y")))
    by_ids = await engine.choose(ChoiceRequest("b", tuple(engine.tokenize("which one ?")), ("x", "y")))
    assert by_ids == by_text
    assert seen == ["which one ?"] * 2
