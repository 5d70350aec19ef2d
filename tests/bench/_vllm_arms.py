"""Raw vLLM and ours on one loaded engine: each arm is asked by name and tells its seconds and tokens.

"Raw" is vLLM's own client with its own `n` samples, whole outputs only: `AsyncLLM.generate`, or `LLMEngine` stepped to
the end on the engine's thread where the model runs in this process. Both sides get the same tokens and the same seeds
(sample i draws with seed + i on both), so they do the same steps.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from reason_engine.answers import find
from reason_engine.engines.vllm.backend import ThreadBackend
from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.types import Chunk, GenerateRequest, Message, Sampling

FACTS = "The {0}th house has {1} windows, {2} doors and a garden of {3} square metres with {4} old trees. "


@dataclass(frozen=True)
class Spent:
    """What an arm took: wall and processor time of this process, and the tokens that it drew."""

    seconds: float
    cpu: float
    tokens: int
    accepted: int = 0
    """Drafted tokens that were right."""


class RecordingEngine(VllmEngine):
    """Keeps the requests that reach it, so that the same work can be asked of vLLM itself."""

    asked: list[GenerateRequest]

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        self.asked.append(request)
        async with aclosing(super().generate(request)) as chunks:  # pyright: ignore[reportArgumentType]
            async for chunk in chunks:
                yield chunk


class Raw:
    """vLLM's own client under a started engine of ours."""

    def __init__(self, engine: VllmEngine) -> None:
        self._backend: Any = engine._backend
        self._llm: Any = self._backend._llm
        self._inside = isinstance(self._backend, ThreadBackend)
        self._count = 0

    async def reset(self) -> None:
        """Forget all prefixes."""
        if self._inside:
            await self._backend._call(self._llm.reset_prefix_cache)
        else:
            await self._llm.reset_prefix_cache()

    async def generate(self, prompt: list[int], params: Any) -> Any:
        """The one output of a request, all samples in it."""
        from vllm.inputs import TokensPrompt  # pyright: ignore[reportMissingImports]

        self._count += 1
        id, tokens = f"raw-{self._count}", TokensPrompt(prompt_token_ids=prompt)
        if self._inside:
            return await self._backend._call(lambda: self._stepped(id, tokens, params))
        last = None
        async for output in self._llm.generate(tokens, params, id):
            last = output
        return last

    def _stepped(self, id: str, tokens: Any, params: Any) -> Any:
        self._llm.add_request(id, tokens, params)
        made: list[Any] = []
        while self._llm.has_unfinished_requests():
            made += self._llm.step()
        return made[-1]


def params_of(sampling: Sampling, n: int, eos: list[int], *, seeded: bool = True) -> Any:
    """vLLM's parameters for `n` samples, whole."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams  # pyright: ignore[reportMissingImports]

    return SamplingParams(
        n=n, temperature=sampling.temperature, max_tokens=sampling.max_tokens, logprobs=sampling.logprobs,
        seed=sampling.seed if seeded else None, ignore_eos=sampling.ignore_eos,
        stop_token_ids=None if sampling.ignore_eos else eos, output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip


class Arms:
    """The arms of one engine."""

    def __init__(self, engine: RecordingEngine, tokens: int, prompt: int) -> None:
        self._engine, self._tokens, self._length = engine, tokens, prompt
        self._raw = Raw(engine)

    async def run(self, arm: str, number: int) -> Spent:
        """`WHO N [unseeded] [logprobs=K]`, or `TEXT N` where drafts are compared: N paths of the prompt of this number.
        Nothing is cached before it."""
        who, paths, *rest = arm.split()
        logprobs = next((int(word.partition("=")[2]) for word in rest if word.startswith("logprobs=")), None)
        fresh = who != "repeats"
        sampling = Sampling(
            max_tokens=self._tokens, temperature=(0.7 if who in ("raw", "ours") else 1.0) if fresh else 0.0,
            seed=1000 * number, ignore_eos=True, logprobs=logprobs,
        )  # fmt: skip
        prompt = self._prompt(number, fresh)
        await self._raw.reset()
        clock, cpu = time.perf_counter(), time.process_time()
        accepted = 0
        if who == "raw":
            output = await self._raw.generate(
                list(prompt), params_of(sampling, int(paths), [], seeded="unseeded" not in rest)
            )
            made = sum(len(sample.token_ids) for sample in output.outputs)
        else:
            made, accepted = await self._ours(prompt, int(paths), sampling)
        return Spent(time.perf_counter() - clock, time.process_time() - cpu, made, accepted)

    async def replay(self, request: GenerateRequest) -> Spent:
        """The vote's own request as vLLM's `n`, and its answers counted."""
        eos = sorted(self._engine._format.eos_ids)
        prompt: Any = request.prompt
        ids = list(prompt if isinstance(prompt, tuple) else prompt.ids)
        plain = params_of(Sampling(request.sampling.max_tokens, request.sampling.temperature), request.n, eos)
        plain.seed = request.sampling.seed
        await self._raw.reset()
        clock, cpu = time.perf_counter(), time.process_time()
        output = await self._raw.generate(ids, plain)
        Counter(find(sample.text) for sample in output.outputs).most_common(1)
        made = sum(len(sample.token_ids) for sample in output.outputs)
        return Spent(time.perf_counter() - clock, time.process_time() - cpu, made)

    async def reset(self) -> None:
        """Forget all prefixes."""
        await self._raw.reset()

    async def _ours(self, prompt: tuple[int, ...], paths: int, sampling: Sampling) -> tuple[int, int]:
        request = GenerateRequest(f"arm-{time.monotonic_ns()}", prompt, paths, sampling, interval=8)
        made = accepted = 0
        async with aclosing(self._engine.generate(request)) as chunks:  # pyright: ignore[reportArgumentType]
            async for chunk in chunks:
                made += chunk.token_count
                accepted += chunk.draft_accepted
        return made, accepted

    def _prompt(self, number: int, fresh: bool) -> tuple[int, ...]:
        """`fresh`: facts and a question; else the same few facts again and again, to be gone on with."""
        facts = [FACTS.format(i, *((number + 3) * (i + 7) * k % 97 for k in range(4))) for i in range(1, 200)]
        asked = "".join(facts) if fresh else "".join(facts[:2] * 100)
        rendered = self._engine.render_chat([Message("user", asked)], prefill="" if fresh else facts[0])
        ids = tuple(self._engine.tokenize(rendered))
        # the middle goes, so that what begins and ends the turn stays
        return (
            ids if len(ids) <= self._length else ids[: self._length // 2] + ids[-(self._length - self._length // 2) :]
        )
