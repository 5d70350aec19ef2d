"""The chat completions API, unstreamed, with the real client."""

import json

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Profile
from reason_engine.settings import Settings

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]


async def test_direct_is_the_default_and_everything_is_accounted(local) -> None:
    async with local() as house:
        answer = await house.client.chat.completions.create(model="scripted", messages=QUESTION)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content.startswith("two and two")
        reason = answer.model_extra["reason"]
        assert reason["strategy"] == "direct" and reason["samples"] == 1 and reason["stopped"] == "done"
        assert answer.usage.completion_tokens == house.engine.generated
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert answer.system_fingerprint == "scripted" and answer._request_id.startswith("req-")


async def test_a_vote_counts_every_branch(local) -> None:
    async with local() as house:
        answer = await house.client.chat.completions.create(
            model="scripted",
            messages=QUESTION,
            seed=1,
            extra_body={"reasoning": {"strategy": "self-consistency", "n": 9}},
        )
        reason = answer.model_extra["reason"]
        assert answer.choices[0].message.content == "Answer: 4"
        assert reason["votes"] == [{"answer": "4", "count": 6}, {"answer": "5", "count": 3}]
        assert reason["answer"] == "4" and reason["samples"] == 9
        assert answer.usage.completion_tokens == house.engine.generated
        assert sum(s["completion"] for s in reason["usage_by_stage"].values()) == answer.usage.completion_tokens
        details = answer.usage.completion_tokens_details
        assert details.reasoning_tokens == answer.usage.completion_tokens - 2
        assert house.engine.requests == 1, "n samples are one engine request"


async def test_reasoning_has_both_names_and_can_be_left_out(local) -> None:
    async with local() as house:
        message = (await house.chat(reasoning={"strategy": "chain-of-thought"})).json()["choices"][0]["message"]
        assert message["reasoning"] == message["reasoning_content"] == "two and two\nmake four"
        assert message["content"].startswith("Answer:")
        for body in ({"reasoning": {"strategy": "chain-of-thought", "exclude": True}}, {"include_reasoning": False}):
            message = (await house.chat(**body)).json()["choices"][0]["message"]
            assert "reasoning" not in message and "reasoning_content" not in message


@pytest.mark.parametrize(
    ("body", "strategy"),
    [
        ({}, "direct"),
        ({"model": "scripted:chain-of-thought"}, "chain-of-thought"),
        ({"model": "scripted:chain-of-thought", "reasoning": {"strategy": "self-consistency"}}, "self-consistency"),
        ({"model": "scripted:self-consistency", "reasoning_effort": "none"}, "self-consistency"),
        ({"model": "scripted:self-consistency", "reasoning": {"n": 3}}, "self-consistency"),
        ({"reasoning_effort": "minimal"}, "direct"),
        ({"reasoning": {"effort": "low"}}, "auto"),
        ({"reasoning": {"strategy": "auto", "effort": "high"}}, "auto"),
        ({"model": "scripted:auto", "reasoning_effort": "none"}, "auto"),
        ({"reasoning": {"enabled": False}}, "direct"),
        ({"model": None}, "direct"),
    ],
)
async def test_the_first_source_that_names_a_strategy_wins(local, body, strategy) -> None:
    async with local() as house:
        got = await house.chat(**body)
        assert got.status_code == 200, got.text
        assert got.json()["reason"]["strategy"] == strategy
        if body.get("reasoning") == {"n": 3}:
            assert got.json()["reason"]["samples"] == 3


@pytest.mark.parametrize(("effort", "most"), [("low", 1), ("medium", 4), ("high", 16), ("xhigh", 64), ("max", 64)])
async def test_an_effort_is_a_number_of_paths(local, effort, most) -> None:
    engine = Scripted(lambda prompt, seed, index: f"Answer: {seed}", logprob=lambda p, t: -1.0)
    asked = [{"role": "user", "content": "How much is 2 + 2?"}]
    async with local(engine) as house:
        answer = (await house.chat(reasoning_effort=effort, messages=asked)).json()
        assert answer["reason"]["strategy"] == "auto"
        assert answer["reason"]["samples"] == most, "answers that never agree use the whole allowance"
        assert answer["usage"]["completion_tokens"] == 3 * most


async def test_the_servers_default_strategy(local) -> None:
    async with local(settings=Settings(strategy="chain-of-thought")) as house:
        assert (await house.chat()).json()["reason"]["strategy"] == "chain-of-thought"
        assert (await house.chat(model="scripted:direct")).json()["reason"]["strategy"] == "direct"


async def test_effort_none_turns_thinking_off(local) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return "deep thought</think>\nAnswer: 4" if prompt.endswith("<think>\n") else "Answer: 4"

    async with local(Scripted(reply, thinks=True)) as house:
        loud = (await house.chat()).json()["choices"][0]["message"]
        quiet = (await house.chat(reasoning_effort="none")).json()["choices"][0]["message"]
        also = (await house.chat(chat_template_kwargs={"enable_thinking": False})).json()["choices"][0]["message"]
        assert (loud["reasoning"], loud["content"]) == ("deep thought", "Answer: 4")
        assert quiet["reasoning"] is None and also["reasoning"] is None and quiet["content"] == "Answer: 4"


async def test_n_choices_share_one_budget(local) -> None:
    async with local() as house:
        free = (await house.chat(n=3, seed=5)).json()
        assert [choice["index"] for choice in free["choices"]] == [0, 1, 2]
        assert all(choice["reason"]["samples"] == 1 for choice in free["choices"])
        assert free["reason"] == free["choices"][0]["reason"]
        assert len({choice["reason"]["trace"] for choice in free["choices"]}) == 3
        assert free["usage"]["completion_tokens"] == house.engine.generated
        before = house.engine.generated
        tight = (await house.chat(n=3, budget={"tokens": 7})).json()
        spent = tight["usage"]["completion_tokens"]
        assert spent == house.engine.generated - before <= 7
        assert {choice["reason"]["stopped"] for choice in tight["choices"]} == {"budget-tokens"}


@pytest.mark.parametrize("budget", [{"tokens": 12}, {"samples": 2}])
async def test_a_budget_is_never_passed_and_says_why_it_stopped(local, budget) -> None:
    async with local() as house:
        got = (await house.chat(reasoning={"strategy": "self-consistency", "n": 8}, budget=budget)).json()
        assert got["reason"]["stopped"] == f"budget-{next(iter(budget))}"
        assert got["usage"]["completion_tokens"] == house.engine.generated
        assert got["usage"]["completion_tokens"] <= budget.get("tokens", 1000)
        assert got["reason"]["samples"] <= budget.get("samples", 8)


async def test_max_completion_tokens_bounds_each_path_and_wins_over_the_old_name(local) -> None:
    async with local() as house:
        got = (await house.chat(max_completion_tokens=3, max_tokens=500)).json()
        assert got["usage"]["completion_tokens"] == 3 and got["choices"][0]["finish_reason"] == "length"
        got = (await house.chat(max_tokens=3)).json()
        assert got["usage"]["completion_tokens"] == 3


async def test_stop_strings_apply_to_the_content(local) -> None:
    async with local() as house:
        got = (await house.chat(stop=["make"])).json()
        assert got["choices"][0]["message"]["content"] == "two and two\n"
        assert got["choices"][0]["finish_reason"] == "stop"
        got = (await house.chat(stop="two", reasoning={"strategy": "chain-of-thought"})).json()
        assert got["choices"][0]["message"]["content"].startswith("Answer:"), "not to the reasoning"


async def test_logprobs_of_the_content(local) -> None:
    async with local() as house:
        answer = await house.client.chat.completions.create(
            model="scripted", messages=QUESTION, logprobs=True, top_logprobs=2
        )
        tokens = answer.choices[0].logprobs.content
        assert "".join(token.token for token in tokens).startswith("two and two")
        assert all(token.logprob == -0.5 and len(token.top_logprobs) == 2 for token in tokens)
        assert (await house.chat()).json()["choices"][0]["logprobs"] is None


async def test_the_same_seed_gives_the_same_answer_and_a_free_one_is_told(local) -> None:
    async with local(Scripted(lambda prompt, seed, index: f"Answer: {seed}")) as house:
        one, two = (await house.chat(seed=7)).json(), (await house.chat(seed=7)).json()
        assert one["choices"][0]["message"] == two["choices"][0]["message"]
        free = (await house.chat()).json()
        trace = (await house.http.get(f"/v1/traces/{free['id']}")).json()
        again = (await house.chat(seed=trace["seed"])).json()
        assert again["choices"][0]["message"] == free["choices"][0]["message"]


async def test_earlier_turns_are_history_and_their_reasoning_is_dropped(local) -> None:
    async with local(Scripted(lambda prompt, seed, index: "Answer: ok")) as house:
        await house.chat(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]},
                {"role": "assistant", "content": "Hi.", "reasoning_content": "secret", "reasoning": "secret"},
                {"role": "user", "content": "And now?"},
            ]
        )
        prompt = house.engine.log[-1].prompt
        assert prompt == "<system>\nBe brief.\n<user>\nHello\n<assistant>\nHi.\n<user>\nAnd now?\n<assistant>\n"


async def test_a_tool_loop_keeps_what_follows_the_last_question(local) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    async with local(Scripted(lambda prompt, seed, index: "Answer: 4")) as house:
        got = await house.chat(
            messages=[
                {"role": "user", "content": "2 + 2?"},
                {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "use the tool"},
                {"role": "tool", "tool_call_id": "c1", "content": "four"},
            ],
            tools=tools,
        )
        assert got.status_code == 200, got.text
        prompt = house.engine.log[-1].prompt
        assert "<user>\n2 + 2?\n<assistant>\n\n<tool>\nfour\n" in prompt and "add" in prompt
        await house.chat(tools=tools, tool_choice="none")
        assert "add" not in house.engine.log[-1].prompt


async def test_response_format_reaches_the_engine(local) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    async with local() as house:
        got = await house.chat(response_format=form)
        assert json.loads(got.json()["choices"][0]["message"]["content"]) == {}
        assert json.loads(house.engine.log[-1].sampling.structured.json_schema) == schema
        assert (await house.chat(response_format={"type": "json_object"})).status_code == 200
        assert house.engine.log[-1].sampling.structured.json_object
        assert (await house.chat(response_format={"type": "text"})).status_code == 200
        assert house.engine.log[-1].sampling.structured is None


async def test_what_an_engine_lacks_is_said_before_anything_runs(local) -> None:
    poor = Scripted(caps=Capabilities(logprobs=-1))
    async with local(poor) as house:
        for body, param in (
            ({"logprobs": True}, "logprobs"),
            ({"response_format": {"type": "json_object"}}, "response_format.type"),
            ({"reasoning": {"strategy": "tree-of-thoughts"}}, "reasoning.strategy"),
        ):
            got = await house.chat(**body)
            assert got.status_code == 400 and got.json()["error"]["param"] == param, got.text
        assert poor.requests == poor.chooses == 0
    async with local(Scripted(caps=Capabilities(logprobs=3))) as house:
        assert (await house.chat(logprobs=True, top_logprobs=4)).json()["error"]["param"] == "top_logprobs"


async def test_what_other_clients_send_is_accepted(local) -> None:
    async with local() as house:
        got = await house.chat(
            user="u", metadata={"a": "b"}, store=False, service_tier="auto", prompt_cache_key="k",
            safety_identifier="s", verbosity="low", parallel_tool_calls=True, unheard_of=1, audio=None, functions=None,
            modalities=["text"], presence_penalty=0.5, frequency_penalty=-0.5, top_p=0.9, top_k=5, min_p=0.1,
            logit_bias={"3": -100},
            reasoning={"summary": "auto", "generate_summary": "x", "max_tokens": 5, "enabled": True, "effort": None},
            budget={"tokens": 100, "seconds": 20, "samples": None}, response_format=None, tools=[], stop=[],
        )  # fmt: skip
        assert got.status_code == 200, got.text
        sent = house.engine.log[-1].sampling
        assert (sent.top_p, sent.top_k, sent.min_p, sent.logit_bias) == (0.9, 5, 0.1, ((3, -100.0),))
        assert (sent.presence_penalty, sent.frequency_penalty) == (0.5, -0.5)


@pytest.mark.parametrize(
    ("body", "profile", "used"),
    [
        ({"temperature": 0.3}, {}, 0.3),
        ({"temperature": 0.3}, {"direct": 0.4}, 0.4),
        ({"temperature": 0.3, "reasoning": {"temperature": 0.5}}, {"direct": 0.4}, 0.5),
    ],
)
async def test_whose_temperature_counts(local, body, profile, used) -> None:
    async with local(profile=Profile(temperature=profile)) as house:
        await house.chat(**body)
        assert house.engine.log[-1].sampling.temperature == used


async def test_headers(local) -> None:
    async with local() as house:
        got = await house.http.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert got.headers["x-request-id"] == "mine-1" and got.headers["openai-processing-ms"].isdigit()
        for bad in ("has space", "x" * 129):
            got = await house.http.get("/v1/models", headers={"x-request-id": bad})
            assert got.headers["x-request-id"].startswith("req-")
        got = await house.chat(n=0)
        assert got.status_code == 400 and got.headers["x-request-id"]


async def test_an_adapter_is_a_model(local) -> None:
    engine = Scripted()
    await engine.load_adapter("tuned", "/nowhere")
    async with local(engine) as house:
        got = (await house.chat(model="tuned:chain-of-thought")).json()
        assert got["reason"]["strategy"] == "chain-of-thought"
        assert house.engine.log[-1].adapter == "tuned"
        names = [model["id"] for model in (await house.http.get("/v1/models")).json()["data"]]
        assert {"scripted", "scripted:direct", "tuned", "tuned:direct"} <= set(names)


async def test_engine_failures_have_their_status_and_are_not_retried_in_vain(local) -> None:
    def boom(request, index, position) -> None:
        raise ValueError("no such memory")

    async with local(Scripted(fail=boom)) as house:
        got = await house.chat()
        assert got.status_code == 500 and got.headers["x-should-retry"] == "false"
        assert "Traceback" not in got.text
    async with local() as house:
        house.engine.die()
        got = await house.chat()
        assert got.status_code == 503 and got.headers["retry-after"] and got.json()["error"]["code"] == "engine_dead"


async def test_a_failed_request_gives_its_room_back(local) -> None:
    def boom(request, index, position) -> None:
        raise ValueError("no such memory")

    async with local(Scripted(fail=boom)) as house:
        await house.chat()
        service = house.app.state.service
        assert service.gate.held == service.gate.requests == 0 and house.engine.running == 0


async def test_doubled_and_trailing_slashes_are_tolerated(local) -> None:
    async with local() as house:
        got = await house.http.post("/v1//chat/completions/", json={"messages": QUESTION})
        assert got.status_code == 200, got.text
