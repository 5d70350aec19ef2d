"""Several endpoints behind the remote engine: who takes what, and what becomes of a request whose endpoint breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from reason_engine.engines.openai import balance
from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.errors import EngineBusy, EngineDead, EngineError, RequestError, UnknownModel
from reason_engine.types import GenerateRequest, Sampling
from tests.engines.asking import HELLO, Running, read, text, tokens
from tests.engines.endpoint import Endpoint, Event, choice, usage
from tests.engines.replicas import Replicas

OTHER = ({"id": "other", "object": "model", "owned_by": "someone"},)
VLLM = ({"id": "m", "object": "model", "owned_by": "vllm"},)
BROKEN = (500, {"message": "oops"})


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among those with the least load the first one has its turn first."""
    monkeypatch.setattr(balance, "rank", lambda key, url: url)


def says(what: str = "x") -> Endpoint:
    """Every sample is that, and counts two tokens."""

    def script(body: dict[str, Any]) -> list[Event]:
        said = [choice(index, content=what) for index in range(body["n"])]
        return [*said, *(choice(index, finish="stop") for index in range(body["n"])), usage(4, 2 * body["n"])]

    return Endpoint(script)


def torn(*said: str, ends: tuple[int, ...] = ()) -> Endpoint:
    """Samples begin with these texts, those of `ends` end, then the connection is lost."""

    async def events() -> AsyncIterator[Event]:
        for index, begun in enumerate(said):
            yield choice(index, content=begun)
        for index in ends:
            yield choice(index, finish="stop")
        raise httpx2.ReadError("torn")

    return Endpoint(lambda body: events())


@pytest.mark.parametrize("failure", ["down", "500", "torn at once"])
async def test_what_had_not_begun_goes_on_elsewhere(failure: str) -> None:
    first = {"down": says(), "500": Endpoint(lambda body: BROKEN), "torn at once": torn()}[failure]
    made = Replicas(first, says("whole"))
    async with Running(made.engine()) as engine:
        if failure == "down":
            made.down.add("a")
        for _ in range(2):
            chunks = await read(engine, n=3)
            assert [text(chunks, index) for index in range(3)] == ["whole"] * 3
            assert tokens(chunks) == 6
        health = await engine.health()
    assert (health.ready, health.live) == (True, True)
    assert [(one.name, one.up) for one in health.replicas] == [("a:80", False), ("b:80", True)]
    assert made.seen.count("b") == 2 and made.clock.pauses == []
    assert {body["n"] for body in made.hosts["b"].bodies} == {3}  # whole, not one by one


async def test_a_broken_sample_goes_on_behind_its_own_text() -> None:
    made = Replicas(torn("The answer"), says(" is 42."))
    async with Running(made.engine(prefill="turn")) as engine:
        chunks = await read(engine, max_tokens=9, seed=5)
        assert text(chunks) == "The answer is 42."
        assert tokens(chunks) == 3  # one was seen before the break, two after it
    (again,) = made.hosts["b"].bodies
    assert again["messages"][-1] == {"role": "assistant", "content": "The answer"}
    assert (again["max_tokens"], again["n"]) == (8, 1)
    assert again["seed"] != 5


async def test_samples_that_had_ended_stay_and_the_others_go_on() -> None:
    made = Replicas(torn("one", "two", "three", ends=(1,)), says("!"))
    async with Running(made.engine(prefill="turn")) as engine:
        chunks = await read(engine, n=3)
    assert [text(chunks, index) for index in range(3)] == ["one!", "two", "three!"]
    assert sorted(chunk.index for chunk in chunks if chunk.finish_reason) == [0, 1, 2]
    begun = sorted(body["messages"][-1]["content"] for body in made.hosts["b"].bodies)
    assert begun == ["one", "three"]
    assert [chunk.prompt_tokens for chunk in chunks if chunk.prompt_tokens] == [4]  # told once


async def test_a_text_prompt_goes_on_as_text() -> None:
    async def events() -> AsyncIterator[Event]:
        yield {"choices": [{"index": 0, "text": "upon "}]}
        raise httpx2.ReadError("torn")

    rest = [{"choices": [{"index": 0, "text": "a time", "finish_reason": "length"}]}]
    made = Replicas(Endpoint(lambda body: events()), Endpoint(lambda body: rest))
    async with Running(made.engine()) as engine:
        assert text(await read(engine, prompt="Once ")) == "upon a time"
    assert made.hosts["b"].bodies[0]["prompt"] == "Once upon "


async def test_without_begun_answers_it_is_drawn_again_and_what_was_shown_left_out() -> None:
    again = [choice(content="The an"), choice(content="swer is 42."), choice(finish="stop"), usage(4, 6)]
    made = Replicas(torn("The answer"), Endpoint(lambda body: again))
    async with Running(made.engine()) as engine:
        chunks = await read(engine, seed=5)
    assert text(chunks) == "The answer is 42."
    assert tokens(chunks) == 6
    assert made.hosts["b"].bodies[0]["seed"] == 5


async def test_one_that_becomes_another_text_is_an_error_alone_and_a_cut_path_among_others() -> None:
    made = Replicas(torn("The answer"), says("No"))
    async with Running(made.engine()) as engine:
        with pytest.raises(EngineError, match="broke off after 1 tokens"):
            await read(engine)
    made = Replicas(torn("No", "Yes", ends=(0,)), says("No"))
    async with Running(made.engine()) as engine:
        chunks = await read(engine, n=2)
    assert {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason} == {0: "stop", 1: "abort"}


async def test_a_thought_that_was_cut_goes_on_as_one() -> None:
    async def events() -> AsyncIterator[Event]:
        yield choice(reasoning="Six times")
        raise httpx2.ReadError("torn")

    rest = [choice(reasoning=" twelve"), choice(content="72"), choice(finish="stop")]
    made = Replicas(Endpoint(lambda body: events()), Endpoint(lambda body: rest))
    async with Running(made.engine(prefill="flags")) as engine:
        assert text(await read(engine)) == "<think>Six times twelve</think>72"


async def test_one_that_had_all_its_tokens_is_only_ended() -> None:
    made = Replicas(torn("ab"), says())
    async with Running(made.engine(prefill="turn")) as engine:
        chunks = await read(engine, max_tokens=1)
    assert (text(chunks), chunks[-1].finish_reason) == ("ab", "length")
    assert made.seen == ["a"]


async def test_where_all_fail_the_last_failure_is_told() -> None:
    made = Replicas(Endpoint(lambda body: BROKEN), Endpoint(lambda body: (500, {"message": "also"})))
    async with Running(made.engine()) as engine:
        with pytest.raises(EngineError, match="also"):
            await read(engine)
    assert made.seen == ["a", "b"]


async def test_a_wrong_request_is_not_tried_elsewhere() -> None:
    made = Replicas(Endpoint(lambda body: (400, {"message": "bad top_p", "param": "top_p"})), says())
    async with Running(made.engine()) as engine:
        with pytest.raises(RequestError, match="top_p"):
            await read(engine)
    assert made.seen == ["a"]


async def test_one_at_capacity_is_passed_over_and_asked_again_when_it_said() -> None:
    made = Replicas(Endpoint(lambda body: (429, {"message": "full"})), says("b"))
    made.hosts["a"].headers = {"retry-after": "7"}
    async with Running(made.engine()) as engine:
        for _ in range(3):
            assert text(await read(engine)) == "b"
        assert made.seen == ["a", "b", "b", "b"]
        assert (await engine.health()).replicas[0].up is False
        made.hosts["a"].script = says("a").script
        made.clock.at += 7
        assert text(await read(engine, prompt="Another beginning.")) == "a"


async def test_alone_it_waits_as_told() -> None:
    made = Replicas(Endpoint(lambda body: (429, {"message": "full"})))
    made.hosts["a"].headers = {"retry-after": "7"}
    made.clock.waking = lambda at: setattr(made.hosts["a"], "script", says().script)
    async with Running(made.engine(max_wait=10)) as engine:
        assert text(await read(engine)) == "x"
    assert made.clock.pauses == [7]


async def test_a_wait_that_is_too_long_is_a_refusal_that_says_so() -> None:
    made = Replicas(Endpoint(lambda body: (429, {"message": "full"})))
    made.hosts["a"].headers = {"retry-after": "70"}
    async with Running(made.engine(max_wait=60)) as engine:
        with pytest.raises(EngineBusy, match="full") as caught:
            await read(engine)
    assert caught.value.pause == 70 and made.clock.pauses == []


async def test_pauses_grow_while_it_stays_away_and_it_is_taken_back() -> None:
    made = Replicas(says("a"), says("b"))
    async with Running(made.engine()) as engine:
        made.down.add("a")
        await read(engine)
        for rest in (1, 2, 4, 8, 16, 32, 60, 60):
            made.clock.at += rest - 0.5
            asked = made.listings["a"]
            await engine.health()
            assert made.listings["a"] == asked  # not before its time
            made.clock.at += 0.5
            health = await engine.health()
            assert made.listings["a"] == asked + 1
            assert health.ready and "a:80" in health.detail
        made.down.clear()
        made.clock.at += 60
        health = await engine.health()
        assert all(one.up for one in health.replicas) and health.detail == ""


async def test_one_that_comes_back_with_another_model_stays_out() -> None:
    made = Replicas(says("a"), says("b"))
    async with Running(made.engine()) as engine:
        made.down.add("a")
        await read(engine)
        made.down.clear()
        made.hosts["a"].models = OTHER
        made.clock.at += 100
        health = await engine.health()
    assert not health.replicas[0].up and "it has no model 'm'; it has: other" in health.replicas[0].detail


async def test_at_start_those_that_do_not_fit_are_left_out_with_a_note(caplog: pytest.LogCaptureFixture) -> None:
    made = Replicas(says("a"), says("b"), says("c"), says("d"))
    made.hosts["b"].models, made.hosts["c"].models = OTHER, VLLM
    made.down.add("d")
    async with Running(made.engine()) as engine:
        health = await engine.health()
        found = "; ".join(engine.info.found)
    assert [one.up for one in health.replicas] == [True, False, False, False]
    for told in ("no model 'm'", "of kind vllm", "refused"):
        assert told in caplog.text and told in found


async def test_the_first_that_answers_decides_and_none_is_an_error() -> None:
    made = Replicas(says("a"), says("b"))
    made.down.add("a")
    async with Running(made.engine()) as engine:
        assert engine.info.name == "m"
    made.down.add("b")
    with pytest.raises(EngineDead):
        await made.engine().start()
    made.down.clear()
    with pytest.raises(UnknownModel, match="it has: m"):
        await made.engine(model="x").start()


async def test_with_all_gone_it_is_dead_until_one_is_back() -> None:
    made = Replicas(says("a"), says("b"))
    async with Running(made.engine()) as engine:
        made.down |= {"a", "b"}
        with pytest.raises(EngineDead):
            await read(engine)
        health = await engine.health()
        assert (health.ready, health.live) == (False, False)
        made.down.clear()
        assert text(await read(engine)) in ("a", "b")  # a request is worth a try


async def test_one_that_is_still_loading_is_waited_for() -> None:
    made = Replicas(says())
    made.hosts["a"].models = ()
    made.hosts["a"].listing = (503, {"message": "Loading model"})
    made.clock.waking = lambda at: made.hosts["a"].__dict__.update(listing=None, models=Endpoint().models)
    async with Running(made.engine(max_wait=10)) as engine:
        assert text(await read(engine)) == "x"
    assert made.clock.pauses == [1.0]


async def test_an_open_request_is_closed_at_the_end_wherever_it_is() -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[Event]:
        yield choice(content="a")
        reached.set()
        await asyncio.Event().wait()

    made = Replicas(torn("b"), Endpoint(lambda body: endless()))
    async with Running(made.engine(prefill="turn")) as engine:
        reading = asyncio.create_task(read(engine))
        await reached.wait()
        await engine.abort("r")
        chunks = await reading
        health = await engine.health()
    assert health.running == 0
    assert (text(chunks), chunks[-1].finish_reason) == ("ba", "abort")
    assert made.hosts["b"].open == 0 and all(one.running == 0 for one in health.replicas)


@pytest.mark.parametrize(
    "events",
    [
        [{"choices": "no"}],
        [{"choices": [{"delta": "no"}]}],
        [[1]],
        [{"choices": [{"index": 7, "delta": {"content": "a"}}]}],
    ],
)
async def test_nonsense_is_an_error_and_tried_elsewhere(events: list[Any]) -> None:
    made = Replicas(Endpoint(lambda body: events))
    async with Running(made.engine()) as engine:
        with pytest.raises(EngineError):
            await read(engine)
    made = Replicas(Endpoint(lambda body: events), says("whole"))
    async with Running(made.engine()) as engine:
        assert text(await read(engine)) == "whole"


@pytest.mark.parametrize(
    "urls", [("ftp://x/v1",), ("http://",), ("x",), ("http://a:99999/v1",), ("http://a/v1", "http://a/v1/")]
)
def test_addresses_are_checked(urls: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match=r"address|twice"):
        OpenAIConfig(base_url=urls[0], replicas=urls[1:])


async def test_requests_of_a_search_stay_together_and_others_are_spread() -> None:
    started, go = asyncio.Semaphore(0), asyncio.Event()

    def held(name: str) -> Endpoint:
        async def events(n: int) -> AsyncIterator[Event]:
            started.release()
            await go.wait()
            for index in range(n):
                yield choice(index, content=name, finish="stop")

        return Endpoint(lambda body: events(body["n"]))

    made = Replicas(held("a"), held("b"))

    async def ask(engine: Any, number: int, search: str = "") -> None:
        prompt = engine.render_chat(HELLO) if search else f"{number} bottles"
        asked = GenerateRequest(f"r{number}", prompt, 1, Sampling(), search=search)
        assert [chunk async for chunk in engine.generate(asked)]

    async with Running(made.engine()) as engine, asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(ask(engine, number))
            await started.acquire()
        assert sorted(made.seen) == ["a"] * 3 + ["b"] * 3
        go.set()
    made.seen.clear()
    async with Running(made.engine()) as engine:
        for number in range(5):
            await ask(engine, number, search="s")
    assert len(set(made.seen)) == 1 and len(made.seen) == 5


async def test_one_that_lost_the_model_is_left_out_and_alone_it_is_a_404() -> None:
    gone = (404, {"message": "no model 'm'"})
    made = Replicas(Endpoint(lambda body: gone), says("b"))
    async with Running(made.engine()) as engine:
        assert text(await read(engine)) == "b"
        assert "no longer has the model" in (await engine.health()).replicas[0].detail
    made = Replicas(Endpoint(lambda body: gone))
    async with Running(made.engine()) as engine:
        with pytest.raises(UnknownModel, match="no model 'm'"):
            await read(engine)


async def test_one_that_answers_another_sample_has_failed() -> None:
    stray = [choice(7, content="x"), choice(7, finish="stop")]
    made = Replicas(Endpoint(lambda body: stray))
    async with Running(made.engine(max_retries=1)) as engine:
        with pytest.raises(EngineError, match="other samples"):
            await read(engine)
    assert made.seen == ["a", "a"] and made.clock.pauses == [0.5]


async def test_one_that_loads_anew_is_not_ready_and_not_dead() -> None:
    made = Replicas(says())
    async with Running(made.engine(max_wait=10)) as engine:
        made.hosts["a"].listing = (503, {"message": "loading"})
        for _ in range(9):
            health = await engine.health()
            assert (health.ready, health.live) == (False, True) and "loading" in health.detail
        made.hosts["a"].listing = None
        assert text(await read(engine)) == "x"  # after one short rest, however often it was looked at
    assert sum(made.clock.pauses) <= 1


async def test_the_prompt_is_told_once_though_two_have_read_it() -> None:
    def told(made: int, **delta: Any) -> Event:
        return {**choice(**delta), "usage": {"prompt_tokens": 6, "completion_tokens": made}}

    async def events() -> AsyncIterator[Event]:
        yield told(1, content="a")
        raise httpx2.ReadError("torn")

    rest = [told(1, content="b"), told(1, finish="stop"), usage(7, 1)]
    made = Replicas(Endpoint(lambda body: events(), models=VLLM), Endpoint(lambda body: rest, models=VLLM))
    async with Running(made.engine(prefill="flags")) as engine:
        chunks = await read(engine)
    assert (text(chunks), tokens(chunks)) == ("ab", 2)
    assert [chunk.prompt_tokens for chunk in chunks if chunk.prompt_tokens] == [6]
