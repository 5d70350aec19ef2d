"""What the remote engine finds out at start: the kind of server, and what it can do."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from reason_engine.engines.openai.kinds import Found, recognise
from reason_engine.engines.openai.wire.dialects import DIALECTS, KINDS
from reason_engine.errors import CapabilityMissing
from reason_engine.types import Structured
from tests.engines.asking import Running, read, text
from tests.engines.endpoint import Endpoint, Event, choice, usage
from tests.engines.replicas import Replicas

PROPS = {"default_generation_settings": {"n_ctx": 2048}, "total_slots": 4, "build_info": "b1-abc"}
ROUTES = [
    ({}, {"/props": PROPS}, Found("llama.cpp", "b1-abc", 2048, 4)),
    ({"meta": {"n_ctx": 512}}, {"/props": {"default_generation_settings": {"x": 1}}}, Found("llama.cpp", "", 512)),
    ({}, {"/get_server_info": {"mem_fraction_static": 0.8, "version": "0.5.3", "context_length": 4096}},
     Found("sglang", "0.5.3", 4096)),
    ({"owned_by": "sglang", "max_model_len": 9}, {}, Found("sglang", "", 9)),
    ({"owned_by": "vllm", "max_model_len": 4096}, {"/version": {"version": "0.32.0"}}, Found("vllm", "0.32.0", 4096)),
    ({"id": "q", "owned_by": "library"},
     {"/api/version": {"version": "0.12"}, "/api/ps": {"models": [{"name": "q:latest", "context_length": 4096}]}},
     Found("ollama", "0.12", 4096)),
    ({"id": "q"}, {"/api/version": {"version": "0.1"}, "/api/ps": {"models": [{"name": "r"}, 3]}},
     Found("ollama", "0.1")),
    ({"owned_by": "someone"}, {"/version": {"version": "1"}}, Found()),
    ({"owned_by": "reason-engine", "max_model_len": 512}, {"/version": {"version": "1"}}, Found(context=512)),
    ({}, {"/props": {"default_generation_settings": "no"}, "/api/version": {"version": 3}, "/api/ps": {"models": 3}},
     Found()),
    ({"max_model_len": "many"}, {}, Found()),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "routes", "found"), ROUTES)
async def test_a_kind_is_known_by_its_routes(entry: Event, routes: dict[str, Any], found: Found) -> None:
    async def get(path: str) -> dict[str, Any]:
        return routes.get(path, {})

    assert await recognise(entry, get) == found


def test_every_kind_has_a_dialect() -> None:
    assert tuple(DIALECTS) == KINDS
    assert all(dialect.kind == kind for kind, dialect in DIALECTS.items())


class Served:
    """A server with these powers: the most samples of a call (one that is over is refused, or ignored), seeds, the most
    alternatives, ids, structured output, and the way in which it goes on with a begun answer."""

    def __init__(
        self, *, n: int = 8, ignores: bool = False, seeds: bool = True, logprobs: int = 20, ids: bool = True,
        structured: bool = True, way: str = "turn",
    ) -> None:  # fmt: skip
        self.n, self.ignores, self.seeds, self.logprobs = n, ignores, seeds, logprobs
        self.ids, self.structured, self.way, self.drawn = ids, structured, way, 0

    def __call__(self, body: dict[str, Any]) -> Any:
        if body["n"] > self.n and not self.ignores:
            return 400, {"message": "too many", "param": "n"}
        if (body.get("top_logprobs") or 0) > self.logprobs:
            return 400, {"message": "top_logprobs is too high"}
        if "prompt" in body:
            return self.completion(body)
        last = body["messages"][-1]
        samples = range(min(body["n"], self.n))
        said = ["".join(self.word(body, index)) for index in samples]
        if last["role"] == "assistant":
            asked = "flags" if "continue_final_message" in body else "prefix" if "prefix" in last else "turn"
            said = ["ful" if asked == self.way else "The weather"]
        elif "response_format" in body and self.structured:
            said = ['{"hello"']
        places = {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": self.top(body["top_logprobs"])}]} if (
            body.get("logprobs") and self.logprobs >= 0
        ) else None  # fmt: skip
        events = [{**choice(i, content=s)} for i, s in enumerate(said)]
        if places:
            events[0]["choices"][0]["logprobs"] = places
        return [*events, *(choice(i, finish="stop") for i in range(len(said))), usage(4, len(said))]

    def completion(self, body: dict[str, Any]) -> Any:
        if not self.ids:
            return 400, {"message": "prompt must be a string"}
        sent = {"index": 0, "text": "a", "token_ids": [5], "finish_reason": "length"}
        return [{"choices": [sent]}, usage(len(body["prompt"]), 1)]

    def top(self, most: int) -> list[Event]:
        return [{"token": str(i), "logprob": -1.0 - i} for i in range(most)]

    def word(self, body: dict[str, Any], index: int) -> str:
        self.drawn += 1
        return f"word {body['seed'] + index if self.seeds else self.drawn}"


def asked(script: Callable[[dict[str, Any]], Any], **config: Any) -> tuple[Endpoint, Any]:
    endpoint = Endpoint(script)
    return endpoint, endpoint.engine(**{"probe": True, "prefill": "auto", **config})


async def test_powers_are_found_by_asking_and_told() -> None:
    endpoint, made = asked(Served())
    async with Running(made) as engine:
        caps, report = engine.caps, engine.report
        assert (caps.logprobs, caps.structured, caps.prefill, caps.seeds, caps.choose) == (20, True, True, True, True)
        assert not caps.token_ids  # without a tokenizer here
        assert report["n"] == (True, "any") and report["seeds"][0] and report["token ids"][0]
        assert report["begun answers"] == (True, "turn")
        assert "n: any" in engine.info.found
    assert all(body["max_tokens"] <= 4 for body in endpoint.bodies)
    assert len(endpoint.bodies) <= 8


@pytest.mark.parametrize(
    ("powers", "subject", "detail"),
    [
        ({"n": 1}, "n", "1"),
        ({"n": 1, "ignores": True}, "n", "1"),
        ({"seeds": False}, "seeds", "do not repeat a text"),
        ({"n": 1, "seeds": False}, "seeds", "do not repeat a text"),
        ({"logprobs": 5}, "logprobs", "5 alternatives of a token"),
        ({"logprobs": 0}, "logprobs", "of the drawn token only"),
        ({"logprobs": -1}, "logprobs", "none"),
        ({"ids": False}, "token ids", "neither sent nor taken"),
        ({"structured": False}, "structured", "no JSON schemas"),
        ({"way": "prefix"}, "begun answers", "prefix"),
        ({"way": "none"}, "begun answers", "not continued"),
    ],
)
async def test_what_is_missing_is_found(powers: dict[str, Any], subject: str, detail: str) -> None:
    _, made = asked(Served(**powers))
    async with Running(made) as engine:
        assert engine.report[subject][1] == detail
        caps = engine.caps
        if "logprobs" in powers:
            assert caps.logprobs == powers["logprobs"]
        if "seeds" in powers:
            assert not caps.seeds


async def test_samples_beyond_one_call_are_asked_for_in_several() -> None:
    endpoint = Endpoint(Served(n=2), routes={"/props": {**PROPS, "total_slots": 2}})
    async with Running(endpoint.engine(probe=True)) as engine:
        endpoint.bodies.clear()
        chunks = await read(engine, n=5, seed=10)
        assert [text(chunks, index) for index in range(5)] == [f"word {10 + index}" for index in range(5)]
    assert sorted((body["seed"], body["n"]) for body in endpoint.bodies) == [(10, 2), (12, 2), (14, 1)]


@pytest.mark.parametrize("failure", [(429, {"message": "full"}), (503, {"message": "loading"})])
async def test_a_question_that_it_is_too_busy_for_is_asked_again_later(failure: tuple[int, Any]) -> None:
    made = Replicas(Endpoint(lambda body: failure))
    async with Running(made.engine(probe=True, prefill="auto")) as engine:
        caps = engine.caps
        assert (caps.logprobs, caps.structured, caps.prefill) == (20, True, False)  # as assumed
        assert engine.report["not asked yet"][1] == "ids, logprobs, n, prefill, structured"
        first = len(made.seen)
        await engine.health()
        assert len(made.seen) == first  # not at once
        made.hosts["a"].script = Served(logprobs=5)
        made.clock.at += 5
        await engine.health()
        await engine.asked()
        assert engine.caps.logprobs == 5 and engine.caps.prefill
        assert "not asked yet" not in engine.report


async def test_the_pauses_between_the_questions_grow() -> None:
    made = Replicas(Endpoint(lambda body: (429, {"message": "full"})))
    async with Running(made.engine(prefill="auto")) as engine:
        times: list[float] = []
        for _ in range(60):
            before = len(made.seen)
            await engine.health()
            await engine.asked()
            times += [made.clock.at] * (len(made.seen) > before)
            made.clock.at += 5
    assert [later - earlier for earlier, later in pairwise(times)] == [10, 20, 40, 80]


async def test_what_is_configured_is_not_asked() -> None:
    endpoint, made = asked(Served(), logprobs=7, prefill="flags")
    async with Running(made) as engine:
        assert engine.caps.logprobs == 7 and engine.report["begun answers"][1] == "flags"
    assert not any("top_logprobs" in body or body.get("messages", [{}])[-1].get("role") == "assistant"
                   for body in endpoint.bodies)  # fmt: skip


LLAMA = {"/props": PROPS}
SGLANG = {"/get_server_info": {"mem_fraction_static": 0.8}}


@pytest.mark.parametrize(
    ("routes", "sampling", "sent"),
    [
        (LLAMA, {}, {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "ignore_eos": False, "cache_prompt": True}),
        (LLAMA, {"logprobs": 0}, {"logprobs": True, "top_logprobs": 1}),
        (LLAMA, {"structured": Structured(choice=("a", 'b"'))}, {"grammar": 'root ::= "a" | "b\\""'}),
        (SGLANG, {}, {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "no_stop_trim": False}),
        (SGLANG, {"top_k": 5, "stop_token_ids": (7,)}, {"top_k": 5, "stop_token_ids": [7]}),
        (SGLANG, {"structured": Structured(choice=("a", "b+"))}, {"regex": "a|b\\+"}),
    ],
)
async def test_each_kind_is_spoken_to_in_its_own_words(
    routes: dict[str, Any], sampling: dict[str, Any], sent: dict[str, Any]
) -> None:
    endpoint = Endpoint(lambda body: [choice(content="x", finish="stop")], routes=routes)
    async with Running(endpoint.engine()) as engine:
        await read(engine, **sampling)
    (body,) = endpoint.bodies
    assert {name: body.get(name) for name in sent} == sent


@pytest.mark.parametrize(
    ("routes", "sampling", "lacks"),
    [
        (LLAMA, {"stop_token_ids": (1,)}, "llama.cpp, which has no stop_token_ids"),
        (LLAMA, {"structured": Structured(regex="a+")}, "regex"),
        ({"/api/version": {"version": "1"}}, {"top_k": 4}, "OpenAI's API only"),
    ],
)
async def test_what_a_kind_lacks_is_refused(routes: dict[str, Any], sampling: dict[str, Any], lacks: str) -> None:
    endpoint = Endpoint(routes=routes)
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(CapabilityMissing, match=lacks):
            await read(engine, **sampling)
    assert endpoint.bodies == []


async def test_llama_cpp_counts_sample_by_sample() -> None:
    """It sends a usage behind every sample that has ended, and several tokens in one delta."""

    def of(n: int) -> Event:
        return {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n}}

    events = [choice(0, content="a"), choice(1, content="é"), choice(0, finish="stop"), of(5),
              choice(1, content="b"), choice(1, finish="length"), of(4)]  # fmt: skip
    endpoint = Endpoint(lambda body: events, routes=LLAMA)
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine, n=2)
    assert [sum(c.token_count for c in chunks if c.index == index) for index in (0, 1)] == [5, 4]
    assert sum(chunk.prompt_tokens for chunk in chunks) == 9
