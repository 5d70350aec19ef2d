"""What every engine must do, as one class of tests. A module subclasses `EngineContract` and offers a fixture `engine`.

The engine must be started, and answer any prompt at temperature 0 with at least 12 tokens when told to ignore the end
of the sequence. What its `caps` do not promise is skipped, never weakened.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from reason_engine.contracts import Engine
from reason_engine.errors import CapabilityMissing, ContextLengthExceeded, RequestError, UnknownModel
from reason_engine.types import (
    ChoiceRequest,
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    Sampling,
    Structured,
    TokenLogprob,
)

GREEDY = Sampling(max_tokens=12, temperature=0.0, ignore_eos=True)
WARM = Sampling(max_tokens=12, temperature=1.0, ignore_eos=True, seed=5)
SCHEMA = json.dumps(
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
)
numbers = count()


@dataclass
class Sample:
    """One sample's chunks, joined."""

    text: str = ""
    ids: tuple[int, ...] = ()
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    chunks: list[Chunk] = field(default_factory=list[Chunk])

    def add(self, chunk: Chunk) -> None:
        assert self.finish is None, "a chunk after the last one"
        self.text += chunk.text
        self.ids += chunk.token_ids
        self.tokens += chunk.token_count
        self.logprobs += chunk.logprobs
        self.finish, self.stop_reason = chunk.finish_reason, chunk.stop_reason
        self.prompt_tokens += chunk.prompt_tokens
        self.cached_tokens += chunk.cached_tokens
        self.chunks.append(chunk)


def request(
    prompt: str | tuple[int, ...], sampling: Sampling = GREEDY, n: int = 1, adapter: str | None = None
) -> GenerateRequest:
    return GenerateRequest(f"contract-{next(numbers)}", prompt, n, sampling, adapter)


async def read(engine: Engine, asked: GenerateRequest) -> list[Sample]:
    """All samples of a request, in index order."""
    samples = [Sample() for _ in range(asked.n)]
    async with aclosing(engine.generate(asked)) as chunks:
        async for chunk in chunks:
            samples[chunk.index].add(chunk)
    return samples


async def together(engine: Engine, asked: list[GenerateRequest]) -> list[list[Sample]]:
    """Several requests at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(engine, one)) for one in asked]
    return [task.result() for task in tasks]


def prompt_of(engine: Engine, text: str = "How much is 2 + 3?") -> str:
    return engine.render_chat([Message("user", text)])


class EngineContract:
    """Subclass it; pytest runs every test against the subclass's `engine` fixture."""

    async def test_one_sample_has_text_counts_and_a_reason(self, engine: Engine) -> None:
        [sample] = await read(engine, request(prompt_of(engine)))
        assert sample.finish == "length"
        assert sample.text
        assert sample.tokens == 12
        assert sample.prompt_tokens > 0
        assert sample.prompt_tokens == sample.chunks[0].prompt_tokens
        if engine.caps.token_ids:
            assert len(sample.ids) == sample.tokens
            assert sample.prompt_tokens == len(engine.tokenize(prompt_of(engine)))

    async def test_n_samples_share_one_request(self, engine: Engine) -> None:
        samples = await read(engine, request(prompt_of(engine), WARM, n=5))
        assert [s.finish for s in samples] == ["length"] * 5
        assert [s.tokens for s in samples] == [12] * 5
        assert len({s.text for s in samples}) > 1
        assert [s.prompt_tokens > 0 for s in samples] == [True, False, False, False, False]

    @pytest.mark.parametrize("limit", [1, 2, 7])
    async def test_max_tokens_is_exact(self, engine: Engine, limit: int) -> None:
        samples = await read(engine, request(prompt_of(engine), replace(GREEDY, max_tokens=limit), n=2))
        assert [(s.tokens, s.finish) for s in samples] == [(limit, "length")] * 2

    async def test_a_stop_string_ends_the_text_before_it(self, engine: Engine) -> None:
        [whole] = await read(engine, request(prompt_of(engine)))
        stop = whole.text[len(whole.text) // 2 :][:3]
        at = whole.text.index(stop)
        [cut] = await read(engine, request(prompt_of(engine), replace(GREEDY, stop=("@never@", stop))))
        assert (cut.text, cut.finish, cut.stop_reason) == (whole.text[:at], "stop", stop)
        assert cut.tokens <= whole.tokens
        [kept] = await read(engine, request(prompt_of(engine), replace(GREEDY, stop=(stop,), include_stop=True)))
        assert kept.text == whole.text[:at] + stop

    async def test_a_stop_string_that_never_comes_holds_nothing_back(self, engine: Engine) -> None:
        [whole] = await read(engine, request(prompt_of(engine)))
        never = whole.text[-1] + "\0never"
        [same] = await read(engine, request(prompt_of(engine), replace(GREEDY, stop=(never,))))
        assert (same.text, same.finish, same.stop_reason) == (whole.text, "length", None)

    async def test_a_stop_token_ends_the_sample_and_is_counted(self, engine: Engine) -> None:
        self._need(engine.caps.token_ids)
        [whole] = await read(engine, request(prompt_of(engine)))
        stop = whole.ids[-1]
        at = whole.ids.index(stop)
        [cut] = await read(engine, request(prompt_of(engine), replace(GREEDY, stop_token_ids=(stop,))))
        assert (cut.ids, cut.finish, cut.stop_reason) == (whole.ids[: at + 1], "stop", stop)
        assert cut.text == engine.detokenize(whole.ids[:at])

    async def test_seeds_reproduce_alone_and_in_a_batch(self, engine: Engine) -> None:
        prompt = prompt_of(engine)
        first = await read(engine, request(prompt, WARM, n=4))
        [third] = await read(engine, request(prompt, replace(WARM, seed=WARM.seed + 2)))
        others = [request(prompt_of(engine, f"other {i}"), replace(WARM, seed=50 + i), n=2) for i in range(3)]
        among = await together(engine, [others[0], request(prompt, WARM, n=4), *others[1:]])
        assert [s.text for s in among[1]] == [s.text for s in first]
        assert third.text == first[2].text
        different = await read(engine, request(prompt, replace(WARM, seed=1000), n=4))
        assert [s.text for s in different] != [s.text for s in first]

    async def test_greedy_is_the_same_alone_and_in_a_batch(self, engine: Engine) -> None:
        prompts = [prompt_of(engine, "x" * (1 + 9 * i)) for i in range(5)]
        alone = [(await read(engine, request(p)))[0].text for p in prompts]
        batched = await together(engine, [request(p) for p in prompts])
        assert [samples[0].text for samples in batched] == alone

    async def test_abort_gives_every_open_sample_a_last_chunk(self, engine: Engine) -> None:
        asked = request(prompt_of(engine), replace(GREEDY, max_tokens=engine.info.context), n=3)
        asked = replace(asked, sampling=replace(asked.sampling, max_tokens=200))
        samples = [Sample() for _ in range(3)]
        async with aclosing(engine.generate(asked)) as chunks:
            async for chunk in chunks:
                if not any(s.chunks for s in samples):
                    await engine.abort(asked.id)
                samples[chunk.index].add(chunk)
        assert all(s.finish in ("abort", "length", "stop") for s in samples)
        assert (await engine.health()).running == 0
        await engine.abort(asked.id)
        await engine.abort("never seen")

    async def test_one_sample_is_aborted_while_the_others_go_on(self, engine: Engine) -> None:
        if not engine.caps.sample_abort:
            with pytest.raises(CapabilityMissing):
                await engine.abort("any", 0)
            return
        before = (await engine.health()).generated_tokens
        sampling = replace(WARM, max_tokens=100)
        whole = await read(engine, request(prompt_of(engine), sampling, n=3))
        for index in (1, 0):
            asked, samples, told = (request(prompt_of(engine), sampling, n=3), [Sample() for _ in range(3)], False)
            async with aclosing(engine.generate(asked)) as chunks:
                async for chunk in chunks:
                    if chunk.index == index and not told:
                        told = True
                        await engine.abort(asked.id, index)
                        await engine.abort(asked.id, 7)
                    samples[chunk.index].add(chunk)
            assert samples[index].finish == "abort"
            # cut in the middle of a character, a text ends with a replacement mark that the whole one lacks
            assert whole[index].text.startswith(samples[index].text.rstrip("\ufffd"))
            assert 0 < samples[index].tokens < 100
            others = [i for i in range(3) if i != index]
            assert [(samples[i].text, samples[i].finish) for i in others] == [
                (whole[i].text, whole[i].finish) for i in others
            ]
            assert sum(s.prompt_tokens for s in samples) == whole[0].prompt_tokens
            before += sum(s.tokens for s in samples)
            await engine.abort(asked.id, index)
        health = await engine.health()
        assert health.running == 0
        if engine.caps.exact_budget:
            assert health.generated_tokens == before + sum(s.tokens for s in whole)

    async def test_a_sample_aborted_before_it_begins_keeps_the_prompt_counted(self, engine: Engine) -> None:
        self._need(engine.caps.sample_abort and engine.caps.exact_budget)
        asked, samples = request(prompt_of(engine), WARM, n=3), [Sample() for _ in range(3)]

        async def reader() -> None:
            async for chunk in engine.generate(asked):
                samples[chunk.index].add(chunk)

        async with asyncio.TaskGroup() as group:
            group.create_task(reader())
            await asyncio.sleep(0)
            await engine.abort(asked.id, 0)
        assert samples[0].finish in ("abort", "length")
        assert [s.finish for s in samples[1:]] == ["length", "length"]
        assert sum(s.prompt_tokens for s in samples) == len(engine.tokenize(prompt_of(engine)))

    async def test_closing_the_stream_leaves_nothing_running(self, engine: Engine) -> None:
        asked = request(prompt_of(engine), replace(GREEDY, max_tokens=200), n=4)
        async with aclosing(engine.generate(asked)) as chunks:
            async for _ in chunks:
                break
        assert (await engine.health()).running == 0
        [after] = await read(engine, request(prompt_of(engine)))
        assert after.finish == "length"

    async def test_cancelling_the_reader_leaves_nothing_running(self, engine: Engine) -> None:
        started = asyncio.Event()

        async def reader() -> None:
            asked = request(prompt_of(engine), replace(GREEDY, max_tokens=200), n=4)
            async with aclosing(engine.generate(asked)) as chunks:
                async for _ in chunks:
                    started.set()
                    await asyncio.Event().wait()

        task = asyncio.create_task(reader())
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert (await engine.health()).running == 0

    async def test_counts_equal_the_engines_own_counter(self, engine: Engine) -> None:
        self._need(engine.caps.exact_budget)
        before = (await engine.health()).generated_tokens
        asked = [request(prompt_of(engine, str(i)), replace(WARM, max_tokens=3 + i), n=3) for i in range(4)]
        results = await together(engine, asked)
        told = sum(s.tokens for samples in results for s in samples)
        assert (await engine.health()).generated_tokens - before == told

    async def test_a_continuation_on_token_ids_equals_the_whole(self, engine: Engine) -> None:
        self._need(engine.caps.continuation)
        prompt = prompt_of(engine)
        for sampling in (GREEDY, WARM):
            [whole] = await read(engine, request(prompt, sampling))
            [begun] = await read(engine, request(prompt, replace(sampling, max_tokens=5)))
            ids = tuple(engine.tokenize(prompt)) + begun.ids
            [rest] = await read(engine, request(ids, replace(sampling, max_tokens=7)))
            assert begun.ids + rest.ids == whole.ids
            assert rest.prompt_tokens == len(ids)
            assert rest.cached_tokens < len(ids)

    async def test_logprobs_are_told_for_every_token(self, engine: Engine) -> None:
        self._need(engine.caps.logprobs >= 0)
        [plain] = await read(engine, request(prompt_of(engine)))
        assert plain.logprobs == ()
        [zero] = await read(engine, request(prompt_of(engine), replace(GREEDY, logprobs=0)))
        assert len(zero.logprobs) == zero.tokens
        assert all(p.logprob <= 0 and p.top == () for p in zero.logprobs)
        if engine.caps.logprobs < 2:
            return
        [two] = await read(engine, request(prompt_of(engine), replace(GREEDY, logprobs=2)))
        assert two.text == plain.text
        for place in two.logprobs:
            assert len(place.top) == 2
            assert place.top[0][2] >= place.top[1][2]
            assert place.logprob == pytest.approx(place.top[0][2], abs=1e-3)

    async def test_choose_is_normalised_and_generates_nothing(self, engine: Engine) -> None:
        self._need(engine.caps.choose)
        before = (await engine.health()).generated_tokens
        options = ("yes", "no", "perhaps so")
        choice = await engine.choose(ChoiceRequest("choice", prompt_of(engine), options))
        assert len(choice.probabilities) == 3
        assert sum(choice.probabilities) == pytest.approx(1)
        assert all(0 <= p <= 1 for p in choice.probabilities)
        assert 0 <= choice.mass <= 1
        assert choice.prompt_tokens > 0
        if engine.caps.exact_budget:
            assert (await engine.health()).generated_tokens - before == choice.completion_tokens

    async def test_structured_output_is_valid(self, engine: Engine) -> None:
        self._need(engine.caps.structured)
        constrained = replace(WARM, max_tokens=60, ignore_eos=False)
        by_choice = replace(constrained, structured=Structured(choice=("red", "green")))
        for sample in await read(engine, request(prompt_of(engine), by_choice, n=3)):
            assert sample.text in ("red", "green")
            assert sample.finish == "stop"
        schema = replace(constrained, structured=Structured(json_schema=SCHEMA))
        for sample in await read(engine, request(prompt_of(engine), schema, n=2)):
            assert isinstance(json.loads(sample.text), dict)

    async def test_a_prompt_over_the_context_is_refused(self, engine: Engine) -> None:
        long = tuple(engine.tokenize("word ")) * (engine.info.context + 1)
        with pytest.raises(ContextLengthExceeded) as caught:
            await read(engine, request(long if engine.caps.continuation else "word " * (engine.info.context + 1)))
        assert str(engine.info.context) in str(caught.value)
        assert caught.value.code == "context_length_exceeded"

    async def test_the_context_bounds_the_answer(self, engine: Engine) -> None:
        self._need(engine.caps.continuation)
        ids = tuple((engine.tokenize("word ") * engine.info.context)[: engine.info.context - 4])
        [sample] = await read(engine, request(ids, replace(GREEDY, max_tokens=50)))
        assert (sample.tokens, sample.finish) == (4, "length")

    async def test_an_unknown_adapter_is_an_unknown_model(self, engine: Engine) -> None:
        with pytest.raises(UnknownModel) as caught:
            await read(engine, request(prompt_of(engine), adapter="nobody"))
        assert (caught.value.status, caught.value.param) == (404, "model")

    @pytest.mark.parametrize("n", [0, -1])
    async def test_no_samples_is_a_request_error(self, engine: Engine, n: int) -> None:
        with pytest.raises(RequestError) as caught:
            async for _ in engine.generate(GenerateRequest("none", prompt_of(engine), n=n)):
                pass
        assert caught.value.param == "n"

    async def test_max_tokens_below_one_is_a_request_error(self, engine: Engine) -> None:
        with pytest.raises(RequestError) as caught:
            await read(engine, request(prompt_of(engine), replace(GREEDY, max_tokens=0)))
        assert caught.value.param == "max_tokens"

    async def test_nothing_reached_the_engine_from_refused_requests(self, engine: Engine) -> None:
        before = (await engine.health()).generated_tokens
        for bad in (request(prompt_of(engine), adapter="x"), request(prompt_of(engine), replace(GREEDY, max_tokens=0))):
            with pytest.raises(RequestError):
                await read(engine, bad)
        health = await engine.health()
        assert (health.generated_tokens, health.running, health.waiting) == (before, 0, 0)

    async def test_it_is_ready_and_describes_itself(self, engine: Engine) -> None:
        health = await engine.health()
        assert health.ready
        assert health.live
        assert engine.info.context > 0
        assert engine.info.name
        assert engine.info.fingerprint

    async def test_text_survives_its_tokens(self, engine: Engine) -> None:
        self._need(engine.caps.token_ids)
        text = prompt_of(engine, "naïve 数学 two  words")
        assert engine.detokenize(engine.tokenize(text)) == text

    async def test_prefill_stands_at_the_end_of_the_prompt(self, engine: Engine) -> None:
        plain = engine.render_chat([Message("user", "q")])
        assert engine.render_chat([Message("user", "q")], prefill="So") == plain + "So"

    @staticmethod
    def _need(promised: bool) -> None:
        if not promised:
            pytest.skip("this engine does not promise it")
