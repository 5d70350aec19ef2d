"""The operator's rules over HTTP: what they stop never reaches the engine, or never reaches the client."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import regex

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.trace import Closed, Opened, Proposed, Sampled, Scored
from reason_engine.serving.guard.access import digest_of
from reason_engine.serving.guard.output_filter import OutputFilter
from reason_engine.serving.guard.rules import Matcher
from reason_engine.settings import Settings
from reason_engine.strategies import strategies
from reason_engine.types import ScoreRequest, Scores

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
SECRET = {"name": "secret", "kind": "pattern", "pattern": r"code xyz\w+", "longest": 20}
WORDS = {"name": "words", "kind": "list", "words": ["blue cheese", "Gorgonzola"]}


def leak(prompt: str, seed: int, index: int) -> str:
    return "Let me think of the code\nIt is code xyzzy I believe\nAnswer: code xyzzy indeed and much more of it to say"


@pytest.fixture
def guarded(local, tmp_path: Path):
    """Opens an application with rules: `async with guarded([rule], engine, message=...)`."""

    def opened(rules: list[dict[str, Any]], engine: Scripted | None = None, key: str = "none", **more: Any):
        settings = more.pop("settings", {})
        file = tmp_path / "rules.yaml"
        file.write_text(json.dumps({"rules": rules, **more}))
        return local(engine or Scripted(leak), settings=Settings(guard=file, **settings), key=key)

    return opened


async def streamed(house, **body: Any) -> tuple[dict[str, str], list[str], str]:
    """(joined deltas by field, finish reasons, the whole raw stream)."""
    body = {"model": "scripted", "messages": QUESTION, "stream": True, **body}
    raw = (await house.http.post("/v1/chat/completions", json=body)).text
    fields, ends = {"content": "", "reasoning": ""}, []
    for line in raw.splitlines():
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            for field in fields:
                fields[field] += choice.get("delta", {}).get(field) or ""
            ends += [choice["finish_reason"]] if choice.get("finish_reason") else []
    return fields, ends, raw


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stopped_request_never_reaches_the_engine(guarded, stream) -> None:
    async with guarded([SECRET], message="Not here.") as house:
        asked = [{"role": "system", "content": "the code xyzzy"}, *QUESTION]
        got = await house.client.chat.completions.create(model="scripted", messages=asked, n=2, stream=stream)
        if stream:
            chunks = [chunk async for chunk in got]
            text = "".join(c.delta.content or "" for k in chunks for c in k.choices if c.index == 1)
            ends = [c.finish_reason for k in chunks for c in k.choices if c.finish_reason]
            assert (text, ends) == ("Not here.", ["content_filter"] * 2)
        else:
            assert {c.message.content for c in got.choices} == {"Not here."}
            assert {c.finish_reason for c in got.choices} == {"content_filter"}
            assert got.usage.completion_tokens == got.usage.prompt_tokens == 0
            reason = got.model_extra["reason"]
            assert (reason["filtered"], reason["samples"], reason["answer"]) == ("secret", 0, None)
            trace = (await house.http.get(f"/v1/traces/{got.id}")).json()
            assert trace["nodes"] == [] and "xyzzy" not in json.dumps(trace)
        assert house.engine.requests == house.engine.generated == house.engine.prompt_tokens == 0
        metrics = (await house.http.get("/metrics")).text
        assert 'reason_guard_stops_total{rule="secret",where="requests"} 1.0' in metrics


PARTS = [{"type": "text", "text": "the co"}, {"type": "text", "text": "de xyzzy"}]
CALL = {"id": "1", "function": {"name": "f", "arguments": '{"a": "code xyzzy"}'}}
CALLED = {"role": "assistant", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": PARTS}]},
        {"messages": [{"role": "user", "content": "ｃｏｄｅ ｘｙｚｚｙ"}]},
        {"messages": [{"role": "user", "content": "co\u200bde xyzzy"}]},
        {"messages": [*QUESTION, CALLED, {"role": "tool", "tool_call_id": "1", "content": "x"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"code xyzzy": {}}}}}]},
        {"reasoning": {"strategy": "tree-of-thoughts", "propose_prompt": "code xyzzy {problem} {state}"}},
    ],
)  # fmt: skip
async def test_every_way_into_a_prompt_is_checked(guarded, body) -> None:
    async with guarded([SECRET]) as house:
        got = await house.chat(**body)
        assert got.json()["choices"][0]["finish_reason"] == "content_filter", got.text
        assert house.engine.requests == 0
        assert (await house.chat()).json()["choices"][0]["finish_reason"] == "content_filter", "the answer"
        assert house.engine.requests == 1


@pytest.mark.parametrize("strategy", list(strategies))
@pytest.mark.parametrize("rule", [SECRET, {**SECRET, "longest": None}], ids=["held", "whole"])
async def test_what_a_rule_catches_was_never_streamed(guarded, strategy, rule) -> None:
    async with guarded([rule]) as house:
        fields, ends, raw = await streamed(
            house, reasoning={"strategy": strategy}, stream_options={"include_events": True}
        )
        assert ends == ["content_filter"] and "xyzzy" not in raw
        if rule["longest"] and strategy in ("direct", "chain-of-thought"):
            assert "Let me" in fields["content"] + fields["reasoning"], "what cannot be part of a match is let go"
        whole = (await house.chat(reasoning={"strategy": strategy})).json()
        assert "xyzzy" not in json.dumps(whole) and whole["choices"][0]["finish_reason"] == "content_filter"
        assert whole["reason"]["answer"] is None and whole["reason"]["votes"] == []
        trace = (await house.http.get(f"/v1/traces/{whole['id']}")).text
        assert "xyzzy" not in trace
        assert house.engine.running == 0


async def test_a_stopped_answer_ends_everything_at_once_and_is_accounted_for(guarded) -> None:
    async with guarded([SECRET]) as house:
        got = (await house.chat(reasoning={"strategy": "self-consistency", "n": 8})).json()
        length = len(leak("", 0, 0).split()) + 1
        assert got["reason"]["stopped"] == "cancelled" and got["reason"]["filtered"] == "secret"
        assert got["usage"]["completion_tokens"] == house.engine.generated < 8 * length
        assert house.engine.running == 0 and house.engine.aborted >= 7
        assert house.app.state.service.gate.held == 0


async def test_an_answer_without_a_match_is_the_same_as_without_rules(guarded, local) -> None:
    def fine(prompt: str, seed: int, index: int) -> str:
        return "two and two\nthe code is no number\nAnswer: the code xy"

    async with (
        guarded([{**SECRET, "pattern": r"code xyz\w+"}, WORDS], Scripted(fine)) as house,
        local(Scripted(fine)) as free,
    ):
        for strategy in ("direct", "chain-of-thought", "self-consistency"):
            body = {"reasoning": {"strategy": strategy}, "seed": 3}
            mine, theirs = await house.chat(**body), await free.chat(**body)
            assert mine.json()["choices"][0]["message"] == theirs.json()["choices"][0]["message"]
            fields, ends, _ = await streamed(house, **body)
            message = theirs.json()["choices"][0]["message"]
            assert fields == {"content": message["content"], "reasoning": message["reasoning"] or ""}
            assert ends == ["stop"]


async def test_reasoning_comes_before_content_though_it_is_held_back(guarded) -> None:
    async with guarded([WORDS], Scripted(lambda *_: "one\ntwo\nAnswer: 3")) as house:
        _, _, raw = await streamed(house, reasoning={"strategy": "chain-of-thought"})
        assert raw.rindex('"reasoning": "') < raw.index('"content": "Answer')


@pytest.mark.parametrize("reach", [20, None])
@pytest.mark.parametrize(
    "event",
    [
        Scored(1, 0.5, "judge", "it says code xyzzy"),
        Proposed(1, "code xyzzy", 1.0),
        Closed(0, {"votes": [{"answer": "code xyzzy"}]}),
        Sampled(1, "the code xyzzy", "stop", 3),
    ],
    ids=lambda event: event.kind,
)
async def test_no_event_tells_what_was_not_said(event, reach) -> None:
    told, said = [], []
    matcher = Matcher("secret", regex.compile(r"code xyz\w+"), reach)
    output = OutputFilter([matcher], None, None, said.append, lambda *stop: told.append(stop), "")
    output.add_event(Opened(0, None, "run", prompt="the client's own code xyzzy"))
    output.add_event(event)
    assert await output.finish() == "secret" and told == [("secret", "answers")]
    assert event not in said and all(kept.kind == "opened" for kept in said)


async def test_choices_are_stopped_one_by_one(guarded) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return "Answer: code xyzzy" if seed % 2 else "Answer: nothing to see"

    async with guarded([SECRET], Scripted(reply), message="Hidden.") as house:
        got = await house.client.chat.completions.create(model="scripted", messages=QUESTION, n=6, seed=1)
        ends = {choice.message.content: choice.finish_reason for choice in got.choices}
        assert ends == {"Hidden.": "content_filter", "Answer: nothing to see": "stop"}
        assert len({choice.finish_reason for choice in got.choices}) == 2
        fields, _, raw = await streamed(house, n=6, seed=1)
        assert "xyzzy" not in raw and "Hidden." in fields["content"]


async def test_a_phrase_over_several_tokens_and_lines(guarded) -> None:
    engine = Scripted(lambda *_: "I like Blue\ncheese and bread and a great many other things as well")
    async with guarded([WORDS], engine) as house:
        fields, ends, _ = await streamed(house)
        assert ends == ["content_filter"] and "I like ".startswith(fields["content"])
    engine = Scripted(lambda *_: "I like blue cheeses and gorgonzolas")
    async with guarded([WORDS], engine) as house:
        fields, ends, _ = await streamed(house)
        assert ends == ["stop"] and fields["content"] == "I like blue cheeses and gorgonzolas", "whole words only"


async def test_tool_calls_and_votes_are_checked(guarded) -> None:
    call = '<tool_call>\n{"name": "open", "arguments": {"door": "code xyzzy"}}\n</tool_call>'
    tools = [{"type": "function", "function": {"name": "open", "parameters": {"type": "object"}}}]
    for strategy in ("direct", "self-consistency"):
        async with guarded([{**SECRET, "on": "answers"}], Scripted(lambda *_: call)) as house:
            body = {"tools": tools, "reasoning": {"strategy": strategy}}
            got = (await house.chat(**body)).json()
            assert got["choices"][0]["finish_reason"] == "content_filter" and "xyzzy" not in json.dumps(got)
            _, ends, raw = await streamed(house, **body)
            assert ends == ["content_filter"] and "xyzzy" not in raw


async def test_logprobs_of_a_stopped_answer_are_not_told(guarded) -> None:
    async with guarded([SECRET]) as house:
        for rule_body in ({"logprobs": True, "top_logprobs": 1}, {"logprobs": True, "stream": True}):
            assert "xyzzy" not in (await house.chat(**rule_body)).text


async def test_rules_are_for_requests_answers_or_both(guarded) -> None:
    ask = {"messages": [{"role": "user", "content": "code xyzzy"}]}
    fine = Scripted(lambda *_: "Answer: 4")
    async with guarded([{**SECRET, "on": "answers"}], fine) as house:
        assert (await house.chat(**ask)).json()["choices"][0]["finish_reason"] == "stop"
    async with guarded([{**SECRET, "on": "requests"}]) as house:
        assert "xyzzy" in (await house.chat()).json()["choices"][0]["message"]["content"]


async def test_rules_hold_by_the_label_of_a_key(guarded) -> None:
    digests = {"kiosk": hashlib.sha256(b"key-one").hexdigest().upper()}
    keys = {"settings": {"api_keys": "key-one,key-two"}, "keys": digests}
    for key, end in (("key-one", "content_filter"), ("key-two", "stop")):
        async with guarded([{**SECRET, "keys": ["kiosk"]}], key=key, **keys) as house:
            got = await house.client.chat.completions.create(model="scripted", messages=QUESTION)
            assert got.choices[0].finish_reason == end
    assert digest_of([(b"authorization", b"Bearer key-one")]).hex() == digests["kiosk"].lower()


async def test_a_pattern_that_takes_for_ever_stops_what_it_cannot_check(guarded, monkeypatch) -> None:
    monkeypatch.setattr("reason_engine.serving.guard.rules.SEARCH_SECONDS", 0.02)
    slow = {"name": "slow", "kind": "pattern", "pattern": "(.*a){12}c", "longest": 50}
    async with guarded([slow], Scripted(lambda *_: "Answer: 4")) as house:
        got = await house.chat(messages=[{"role": "user", "content": "c" + "a" * 300}])
        assert got.json()["reason"]["filtered"] == "slow" and house.engine.requests == 0


async def test_documents_that_may_not_be_answered_are_not_retrieved(local, tmp_path) -> None:
    folder, file = tmp_path / "docs", tmp_path / "rules.json"
    folder.mkdir()
    (folder / "a.txt").write_text("The door has the code xyzzy.")
    (folder / "b.txt").write_text("The door is green and made of oak.")
    file.write_text(json.dumps({"rules": [{**SECRET, "on": "answers"}]}))
    async with local(Scripted(lambda *_: "Answer: 4"), settings=Settings(knowledge=folder, guard=file)) as house:
        await house.app.state.service.knowledge.open()
        body = {"messages": [{"role": "user", "content": "Which door?"}], "reasoning": {"knowledge": True}}
        got = await house.chat(**body)
        assert [s["source"] for s in got.json()["reason"]["sources"]] == ["b.txt:1"]
        assert "xyzzy" not in house.engine.log[-1].prompt
        _, _, raw = await streamed(house, **body, stream_options={"include_events": True})
        assert "xyzzy" not in raw and "oak" in raw


@pytest.mark.parametrize("stream", [False, True])
async def test_plain_completions_are_checked_too(guarded, stream) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return " the code xyzzy and so on and on" if seed % 2 else " nothing"

    async with guarded([SECRET], Scripted(reply), message="Hidden.") as house:
        body = {"model": "scripted", "prompt": ["Once", "Twice"], "n": 2, "seed": 2, "max_tokens": 50, "stream": stream}
        got = await house.http.post("/v1/completions", json=body)
        assert "xyzzy" not in got.text and got.text.count("content_filter") == 2
        if not stream:
            choices = got.json()["choices"]
            assert [c["text"] for c in choices] == [" nothing", "Hidden.", " nothing", "Hidden."]
            assert [c["finish_reason"] for c in choices] == ["stop", "content_filter"] * 2
            assert got.json()["usage"]["prompt_tokens"] == 2, "a prompt counts once"
        assert house.engine.running == 0 and house.engine.aborted == 2, "only the stopped ones were cut"
        before = house.engine.requests
        got = await house.http.post("/v1/completions", json={**body, "prompt": "code xyzzy"})
        assert got.text.count("content_filter") == 2 and got.text.count("Hidden.") == 2
        assert house.engine.requests == before


class Judge(Scripted):
    """Also scores: the share of words that are `bad`."""

    async def score(self, request: ScoreRequest) -> Scores:
        assert request.model == "head"
        return Scores(tuple((text.split().count("bad") / 2,) for text in request.inputs))


def unkind(prompt: str, options: tuple[str, ...]) -> list[float]:
    return [0.9, 0.1] if "bad" in prompt.split() else [0.2, 0.8]


BY_MODEL = {"name": "kind", "kind": "classifier", "by": "model", "prompt": "Unkind? {text}", "threshold": 0.5}
BY_HEAD = {"name": "kind", "kind": "classifier", "by": "head", "model": "head"}


@pytest.mark.parametrize("rule", [BY_MODEL, BY_HEAD], ids=["model", "head"])
async def test_a_classifier_of_the_engine(guarded, rule) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return "a bad day\nAnswer: 4" if "rain" in prompt else "a day\nAnswer: 5"

    caps = Capabilities(logprobs=20, token_ids=True, continuation=True, choose=True, score=True, drafting=("none",))
    async with guarded([rule], Judge(reply, choose=unkind, caps=caps)) as house:
        assert (await house.chat()).json()["choices"][0]["message"]["content"].endswith("5")
        before = house.engine.requests
        stopped = await house.chat(messages=[{"role": "user", "content": "a bad " + "word " * 6000}])
        assert stopped.status_code == 400, "far too long is refused first"
        stopped = await house.chat(messages=[{"role": "user", "content": "word " * 3000 + "bad"}])
        assert stopped.json()["reason"]["filtered"] == "kind" and house.engine.requests == before
        body = {"messages": [{"role": "user", "content": "rain?"}]}
        assert (await house.chat(**body)).json()["reason"]["filtered"] == "kind"
        fields, ends, raw = await streamed(house, **body, stream_options={"include_events": True})
        assert fields == {"content": "", "reasoning": ""} and ends == ["content_filter"]
        assert "a bad day" not in raw, "nothing is let go before the verdict"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_classifier_behind_an_endpoint(guarded, monkeypatch, fails) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append({**json.loads(request.content), "key": request.headers["authorization"]})
        if fails:
            return httpx2.Response(400, json={"error": {"message": "out of order"}})
        scores = {"violence": 0.9 if "bad" in asked[-1]["input"] else 0.1}
        return httpx2.Response(
            200,
            json={
                "id": "1",
                "model": "m",
                "results": [
                    {"flagged": False, "categories": {}, "category_scores": scores, "category_applied_input_types": {}}
                ],
            },
        )

    def client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))

    real = openai.AsyncOpenAI
    rule = {
        "name": "out",
        "kind": "classifier",
        "by": "endpoint",
        "url": "http://judge/v1",
        "model": "m",
        "key_env": "JUDGE",
        "on": "requests",
    }
    monkeypatch.setenv("JUDGE", "its-key")
    async with guarded([rule], Scripted(lambda *_: "Answer: 4")) as house:
        monkeypatch.setattr(openai, "AsyncOpenAI", lambda **given: real(**given, http_client=client()))
        got = await house.chat(messages=[{"role": "user", "content": "a bad word"}])
        if fails:
            assert got.status_code == 500 and "out of order" in got.text and house.engine.requests == 0
        else:
            assert got.json()["reason"]["filtered"] == "out"
            assert (await house.chat()).json()["choices"][0]["finish_reason"] == "stop"
            assert asked[0]["key"] == "Bearer its-key" and asked[0]["model"] == "m"
