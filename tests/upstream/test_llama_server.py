"""The remote engine in front of llama.cpp's own server: what it finds, and that it is so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.engines.openai.wire.prefill import BEGUN, QUESTION, REST
from reason_engine.errors import CapabilityMissing, ContextLengthExceeded
from reason_engine.runtime.solve import solve
from reason_engine.runtime.trace import Delta, Event
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import ChoiceRequest, GenerateRequest, Limits, Message, Problem, Sampling, Structured
from tests.engines.contract import Sample
from tests.upstream.conftest import SLOTS, Server, serving

pytestmark = pytest.mark.upstream
WARM = Sampling(max_tokens=12, temperature=1.0, seed=5)
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[OpenAIEngine]:
    made = OpenAIEngine(OpenAIConfig(base_url=server.url))
    await made.start()
    yield made
    await made.close()


async def draw(engine: OpenAIEngine, prompt: Any = None, sampling: Sampling = WARM, n: int = 1) -> list[Sample]:
    asked = engine.render_chat((Message("user", "Tell me of the sea."),)) if prompt is None else prompt
    samples = [Sample() for _ in range(n)]
    async with aclosing(engine.generate(GenerateRequest("r", asked, n, sampling))) as chunks:
        async for chunk in chunks:
            samples[chunk.index].add(chunk)
    return samples


async def test_what_it_can_do_is_found_and_is_so(engine: OpenAIEngine) -> None:
    """One start for all of it: on a busy core a request takes seconds."""
    report = {subject: detail for subject, (_, detail) in engine.report.items()}
    assert report["server"].startswith("llama.cpp")
    assert (engine.info.name, engine.info.context) == ("smollm2", 1024)
    assert report["n"] == f"at most {SLOTS} samples of a call"
    assert report["seeds"] == "the same seed draws the same text"
    caps = engine.caps
    assert (caps.logprobs, caps.structured, caps.prefill, caps.seeds, caps.choose) == (20, True, True, True, True)
    assert not caps.token_ids

    several = await draw(engine, n=SLOTS + 2)
    assert len({sample.text for sample in several}) > 1
    assert all(sample.tokens <= 12 and sample.finish in ("stop", "length") for sample in several)
    assert [sample.tokens for sample in several if sample.finish == "length"] == [12] * sum(
        sample.finish == "length" for sample in several
    )
    [second] = await draw(engine, sampling=replace(WARM, seed=WARM.seed + 1))
    assert second.text == several[1].text

    [told] = await draw(engine, sampling=replace(WARM, max_tokens=4, logprobs=2))
    assert len(told.logprobs) == told.tokens and all(len(place.top) == 2 for place in told.logprobs)
    assert all(place.token_id >= 0 for place in told.logprobs)
    [plain] = await draw(engine, sampling=replace(WARM, max_tokens=4, logprobs=0))
    assert plain.text == told.text and all(place.top == () and place.logprob < 0 for place in plain.logprobs)


async def test_constraints_and_choices(engine: OpenAIEngine) -> None:
    bounded = replace(WARM, max_tokens=40)
    [made] = await draw(engine, sampling=replace(bounded, structured=Structured(json_schema=SCHEMA)))
    assert set(json.loads(made.text)) == {"n"}
    [chosen] = await draw(engine, sampling=replace(bounded, structured=Structured(choice=("red", 'the "green"'))))
    assert chosen.text in ("red", 'the "green"')
    for wanted in ({"structured": Structured(regex="a+")}, {"stop_token_ids": (1,)}):
        with pytest.raises(CapabilityMissing):
            await draw(engine, sampling=replace(WARM, **wanted))
    ask = engine.render_chat((Message("user", "Is water wet? Answer yes or no."),))
    choice = await engine.choose(ChoiceRequest("c", ask, ("Yes", "No")))
    assert sum(choice.probabilities) == pytest.approx(1) and choice.mass > 0


async def test_a_begun_answer_and_a_forced_stop(engine: OpenAIEngine) -> None:
    begun = engine.render_chat((Message("user", QUESTION),)) + BEGUN
    greedy = Sampling(max_tokens=8, temperature=0.0)
    [rest] = await draw(engine, begun, greedy)
    assert rest.text.startswith(REST)
    [cut] = await draw(engine, begun, replace(greedy, stop=("od", "day"), include_stop=True))
    assert cut.text == rest.text[: rest.text.index("od") + 2] and (cut.finish, cut.stop_reason) == ("stop", "od")


async def test_a_prompt_over_the_context_is_refused(engine: OpenAIEngine) -> None:
    with pytest.raises(ContextLengthExceeded):
        await draw(engine, engine.render_chat((Message("user", "word " * 2000),)))


async def test_with_its_tokenizer_paths_are_continued_exactly(server: Server) -> None:
    from tests.real.smollm2 import checkpoint

    engine = OpenAIEngine(OpenAIConfig(base_url=server.url, tokenizer=str(checkpoint())))
    await engine.start()
    try:
        assert engine.caps.token_ids and engine.caps.continuation
        prompt = engine.render_chat((Message("user", "Tell me of the sea."),))
        greedy = Sampling(max_tokens=10, temperature=0.0, ignore_eos=True)
        [whole] = await draw(engine, prompt, greedy)
        assert len(whole.ids) == whole.tokens == 10
        ids = (*engine.tokenize(prompt), *whole.ids[:4])
        [rest] = await draw(engine, ids, replace(greedy, max_tokens=6))
        assert rest.prompt_tokens == len(ids) and whole.ids[:4] + rest.ids == whole.ids
    finally:
        await engine.close()


async def test_a_vote_completes_when_one_of_two_dies_in_its_middle() -> None:
    with serving("--no-ui") as one, serving("--no-ui") as other:
        servers = {server.url.split("/")[2]: server for server in (one, other)}
        engine = OpenAIEngine(OpenAIConfig(base_url=one.url, replicas=(other.url,)))
        await engine.start()
        killed = list[str]()

        def kill(event: Event) -> None:
            if isinstance(event, Delta) and not killed:
                killed.extend(replica.name for replica in engine.replicas if replica.running)
                servers[killed[0]].kill()

        try:
            problem, limits = Problem("What is 2 + 3?"), Limits(tokens=240)
            outcome = await solve(SelfConsistency(n=SLOTS), problem, engine, limits=limits, publish=kill)
            health = await engine.health()
        finally:
            await engine.close()
    assert health.ready and {state.name for state in health.replicas if not state.up} == {killed[0]}
    assert len([node for node in outcome.trace.nodes if node.role == "path" and node.tokens]) == SLOTS
    assert outcome.usage.completion <= 240
