"""Plain completions with the real client."""

import asyncio

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.settings import Settings


def shout(prompt: str, seed: int, index: int) -> str:
    return f" and {prompt.upper()} {seed % 7}"


async def test_a_prompt_is_continued_without_template(local) -> None:
    async with local(Scripted(shout)) as house:
        got = await house.client.completions.create(model="scripted", prompt="one", seed=1, max_tokens=50)
        assert got.choices[0].text == " and ONE 1" and got.choices[0].finish_reason == "stop"
        assert got.usage.completion_tokens == house.engine.generated and got.usage.prompt_tokens == 1
        assert house.engine.log[0].prompt == "one"


async def test_prompts_times_n_echo_and_logprobs(local) -> None:
    async with local(Scripted(shout)) as house:
        got = await house.client.completions.create(
            model="scripted", prompt=["one", "two"], n=2, seed=0, max_tokens=3, echo=True
        )
        assert [choice.index for choice in got.choices] == [0, 1, 2, 3]
        assert [choice.text for choice in got.choices] == [
            "one and ONE 0", "one and ONE 1", "two and TWO 2", "two and TWO 3",
        ]  # fmt: skip
        assert {choice.finish_reason for choice in got.choices} == {"length"}
        got = await house.client.completions.create(model="scripted", prompt="one", logprobs=2, max_tokens=2)
        assert got.choices[0].logprobs.tokens == [" and", " ONE"] and got.choices[0].logprobs.text_offset == [0, 4]


async def test_token_ids_are_read_as_text(local) -> None:
    async with local(Scripted(shout)) as house:
        ids = (await house.http.post("/tokenize", json={"prompt": "one two"})).json()["tokens"]
        for prompt in (ids, [ids]):
            got = await house.client.completions.create(model="scripted", prompt=prompt)
            assert got.choices[0].text.startswith(" and ONE TWO")


async def test_a_stream_adds_up_to_the_whole(live) -> None:
    async with live(Scripted(shout)) as house:
        whole = await house.client.completions.create(model="scripted", prompt=["a", "b"], seed=3)
        texts, usage, ends = ["", ""], None, []
        stream = await house.client.completions.create(
            model="scripted", prompt=["a", "b"], seed=3, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                ends += [choice.finish_reason] if choice.finish_reason else []
        assert texts == [choice.text for choice in whole.choices] and ends == ["stop", "stop"]
        assert usage == whole.usage and house.engine.running == 0


ROWS = [
    ({}, 400, "prompt"),
    ({"prompt": ""}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt"),
    ({"prompt": [[]]}, 400, "prompt"),
    ({"prompt": 5}, 400, "prompt"),
    ({"prompt": [True]}, 400, "prompt"),
    ({"prompt": ["a", 5]}, 400, "prompt"),
    ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": [10**9]}, 400, "prompt"),
    ({"prompt": "a", "n": 129}, 400, "n"),
    ({"prompt": ["a"] * 300}, 400, "prompt"),
    ({"prompt": ["a"] * 100, "n": 3}, 400, "n"),
    ({"prompt": ["a"] * 100, "max_tokens": 4000}, 400, "max_tokens"),
    ({"prompt": "a", "max_tokens": 5000}, 400, "max_tokens"),
    ({"prompt": "a", "reasoning": {"strategy": "direct"}}, 400, "reasoning"),
    ({"prompt": "a", "echo": True, "logprobs": 1}, 400, "logprobs"),
    ({"prompt": "a", "logprobs": 21}, 400, "logprobs"),
    ({"prompt": "a", "best_of": 4}, 400, "best_of"),
    ({"prompt": "a", "suffix": "b"}, 400, "suffix"),
    ({"prompt": "a", "model": "nonesuch"}, 404, "model"),
    ({"prompt": "word " * 5000}, 400, "prompt"),
]


@pytest.mark.parametrize(("body", "status", "param"), ROWS, ids=lambda value: str(value)[:50])
async def test_a_wrong_field(local, body, status, param) -> None:
    async with local(settings=Settings()) as house:
        got = await house.http.post("/v1/completions", json=body)
        assert got.status_code == status and got.json()["error"]["param"] == param, got.text
        assert house.engine.requests == 0 and house.app.state.service.gate.held == 0


async def test_the_time_limit_ends_every_choice_with_what_there_is(local) -> None:
    async def gate(request, index: int, position: int) -> None:
        if request.prompt == "b" and position == 2:
            await asyncio.Event().wait()

    async with local(Scripted(shout, gate=gate), settings=Settings(max_seconds=0.2)) as house:
        whole = await house.http.post("/v1/completions", json={"prompt": ["a", "b"], "seed": 3})
        found = [(choice["text"], choice["finish_reason"]) for choice in whole.json()["choices"]]
        assert found == [(" and A 3", "stop"), (" and B", "length")]
        raw = (await house.http.post("/v1/completions", json={"prompt": "b", "stream": True})).text
        assert '"finish_reason": "length"' in raw and raw.endswith("data: [DONE]\n\n")
        assert house.app.state.service.gate.held == 0 and house.engine.running == 0
