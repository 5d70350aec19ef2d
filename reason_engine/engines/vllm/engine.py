"""vLLM as an engine, releases 0.26 to 0.32: AsyncLLM on accelerators, LLMEngine in a thread on the CPU build.

Prompts are rendered, tokenised and parsed by `ChatFormat`, as on the embedded engine, and reach vLLM as token ids; so a
path is continued exactly where it ended, and both engines mean the same by a request.

`choose` asks for one token wherever the options part: the inner nodes of the tree of their tokens. Each costs one
generated token, which is reported.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import SecretStr

from reason_engine.contracts import Capabilities, Health
from reason_engine.engines import engines
from reason_engine.engines.chat.template import ChatFormat
from reason_engine.engines.chat.text_methods import Spoken
from reason_engine.engines.checkpoint.adapter_files import check_fits, only_lora, read_adapter
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.refusals import check_adapter, check_counts, room_left
from reason_engine.engines.reward_models import Endpoints
from reason_engine.engines.text import Vocabulary, token_ids_of
from reason_engine.engines.vllm import translation as wire
from reason_engine.engines.vllm.arguments import (
    VllmConfig,
    engine_arguments,
    load_error,
    prepare_process,
    require_vllm,
    runs_inprocess,
    vllm_module,
)
from reason_engine.engines.vllm.backend import Backend, ProcessBackend, ThreadBackend
from reason_engine.errors import (
    CapabilityMissing,
    EngineDead,
    EngineError,
    ModelLoadError,
    ReasonError,
    RequestError,
)
from reason_engine.types import (
    Choice,
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    ModelInfo,
    Sampling,
    ScoreRequest,
    Scores,
)

_DRAFTERS = {"custom_class": "sam", "draft_model": "model"}


@engines.register("vllm")
class VllmEngine(Spoken):
    """Constructing it loads nothing; `start` checks the folder, then loads the weights."""

    def __init__(
        self,
        config: VllmConfig,
        *,
        rewards: Mapping[str, str] | None = None,
        reward_keys: Mapping[str, SecretStr] | None = None,
    ) -> None:
        """`rewards`: reward models behind endpoints, by name. Raises SetupError for one that is a folder."""
        self.config = config
        self._rewards = Endpoints(rewards or {}, keys=reward_keys)
        self._backend: Backend | None = None
        self._format: ChatFormat
        self._words: Vocabulary
        self._info: ModelInfo
        self._loras: dict[str, Any] = {}
        self._lora_count = 0
        self._live: dict[str, list[str]] = {}

    @property
    def caps(self) -> Capabilities:
        drafter = str((self.config.speculative_config or {}).get("method", ""))
        return Capabilities(
            logprobs=self.config.max_logprobs,
            token_ids=True,
            continuation=True,
            choose=True,
            score=bool(self._rewards.kinds),
            rewards=tuple(self._rewards.kinds.items()),
            embeds=self._rewards.embeds,
            adapters=self.config.enable_lora,
            structured=True,
            drafting=(_DRAFTERS.get(drafter, drafter),) if drafter else ("none",),
            exact_budget=True,
            sample_abort=True,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def start(self) -> None:
        """Load the model. Raises MissingExtra, ModelLoadError."""
        release = require_vllm()
        files = ModelFolder.find(self.config.model)
        folder, _ = files.path, files.weight_files
        self._format = ChatFormat.load(folder)
        self._words = Vocabulary(self._format.tokenizer)
        inprocess = runs_inprocess(self.config, release)
        prepare_process(inprocess=inprocess)
        replaced = release.cpu and inprocess and files.quantization is not None and _replace_products(folder)
        arguments = engine_arguments(self.config, folder, release=release, replaced=replaced)
        backend = ThreadBackend() if inprocess else ProcessBackend()
        try:
            if self.config.enable_lora and release.cpu:
                from reason_engine.engines.vllm.cpu_repairs import shield_base_rows

                shield_base_rows()
            if self.config.speculative_config and release.cpu:
                from reason_engine.engines.vllm.cpu_repairs import shield_drafting

                shield_drafting()
            context = await backend.start(arguments)
        except Exception as error:  # the boundary to vLLM, whose loaders raise anything
            raise load_error(folder, error) from error
        self._info = ModelInfo(
            name=self.config.name or folder.resolve().name,
            path=str(folder),
            context=context,
            thinks=self._format.thinks,
            think_start=self._format.think_start,
            think_end=self._format.think_end,
            fingerprint=f"vllm-{release.version}-{files.fingerprint}",
            specials=self._format.specials,
        )
        self._backend = backend

    async def close(self) -> None:
        """End all requests and the engine; again: no effect."""
        await self._rewards.close()
        if self._backend is not None:
            await self._backend.close()

    async def health(self) -> Health:
        if self._backend is None:
            return Health(ready=False, live=True, detail="not started")
        running, generated = self._backend.unfinished(), self._backend.generated
        try:
            await self._backend.check()
        except EngineDead as error:
            return Health(False, False, running, 0, generated, str(error))
        return Health(True, True, running, 0, generated)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        backend, lora = await self._ready(request.id, request.adapter)
        sampling = self._checked(request)
        prompt = token_ids_of(request.prompt, self._format.tokenize)
        room = room_left(len(prompt), self._info.context)
        eos = self._format.eos_ids
        # One request of vLLM's a sample, as it would make of them itself: so one sample can be aborted, and several
        # greedy ones are not refused
        parts = [
            (list(prompt), wire.sampling_params(sampling, n=1, index=index, room=room, eos_ids=eos))
            for index in range(request.n)
        ]
        open_samples, told = set(range(request.n)), False
        async with aclosing(self._run(backend, request.id, parts, lora, request.priority)) as outputs:
            async for index, output in outputs:
                if output is None:
                    if index in open_samples:
                        open_samples.discard(index)
                        counted = 0 if told or index else len(prompt)
                        told = told or not index
                        yield Chunk(index, finish_reason="abort", prompt_tokens=counted)
                    continue
                for sample in output.outputs:
                    chunk = wire.chunk(
                        sample,
                        index=index,
                        sampling=sampling,
                        eos_ids=eos,
                        text_of=self._words.text_of,
                    )
                    if not (chunk.token_ids or chunk.text or chunk.finish_reason):
                        continue
                    if chunk.index == 0 and not told:
                        told = True
                        cached = output.num_cached_tokens or 0
                        chunk = replace(chunk, prompt_tokens=len(prompt), cached_tokens=cached)
                    if chunk.finish_reason:
                        open_samples.discard(chunk.index)
                    yield chunk

    async def abort(self, request_id: str, index: int | None = None) -> None:
        for place, part in enumerate(self._live.get(request_id, ())):
            if index in (None, place):
                assert self._backend is not None
                await self._backend.abort(part)

    async def choose(self, request: ChoiceRequest) -> Choice:
        """Raises RequestError for an empty option, or for two that are the same tokens."""
        backend, lora = await self._ready(request.id, request.adapter)
        options = [tuple(self._format.tokenize_bare(option)) for option in request.options]
        if not options or not all(options) or len(set(options)) < len(options):
            raise RequestError("options must be distinct and not empty", param="options")
        prompt = token_ids_of(request.prompt, self._format.tokenize)
        room_left(len(prompt) + max(map(len, options)), self._info.context)
        forks: dict[tuple[int, ...], set[int]] = {}
        for option in options:
            for at, token in enumerate(option):
                forks.setdefault(option[:at], set()).add(token)
        starts, logprobs = list(forks), dict[tuple[int, ...], float]()
        parts = [([*prompt, *start], wire.option_params(sorted(forks[start]))) for start in starts]
        spent = cached = 0
        async with aclosing(self._run(backend, request.id, parts, lora, 0)) as outputs:
            async for at, output in outputs:
                if output is None or not output.outputs[0].token_ids:
                    continue
                sample = output.outputs[0]
                spent += len(sample.token_ids)
                cached += output.num_cached_tokens or 0
                for token in forks[starts[at]]:
                    logprobs[(*starts[at], token)] = float(sample.logprobs[0][token].logprob)
        if spent < len(starts):
            raise EngineError("the request was aborted")
        shares = [math.exp(sum(logprobs[o[: at + 1]] for at in range(len(o)))) for o in options]
        mass = sum(shares)
        probabilities = tuple(share / mass if mass else 1 / len(shares) for share in shares)
        asked = sum(len(prompt) + len(start) for start in starts)
        return Choice(probabilities, min(mass, 1.0), asked, cached, spent)

    async def score(self, request: ScoreRequest) -> Scores:
        """By an endpoint: vLLM serves one model a process, and this one generates. Raises RequestError kinds."""
        return await self._rewards.score(request)

    async def load_adapter(self, name: str, path: str) -> None:
        """A LoRA folder under a name; loading a name anew replaces it. Raises CapabilityMissing, ModelLoadError."""
        if not self.config.enable_lora:
            raise CapabilityMissing("adapters need enable_lora at start", code="capability_missing")
        file = read_adapter(path)
        only_lora(file, "vLLM")
        if file.rank > self.config.max_lora_rank:
            raise ModelLoadError(
                f"{path}: its rank {file.rank} is above max_lora_rank, {self.config.max_lora_rank}, that vLLM was "
                "started with; raise that setting (vllm: {max_lora_rank: …})"
            )
        if name not in self._loras and len(self._loras) >= self.config.max_adapters:
            raise RequestError(
                f"{self.config.max_adapters} adapters are loaded; unload one first", param="name"
            )
        backend, _ = await self._ready(None, None)
        check_fits(file, FilePath(self._info.path))
        self._lora_count += 1
        # vLLM keys its prefix cache by the adapter's name, so new weights need a new one
        lora = vllm_module("lora.request").LoRARequest(
            f"{name}#{self._lora_count}", self._lora_count, str(path)
        )
        try:
            await backend.add_lora(lora)
        except EngineDead:
            raise
        except Exception as error:  # the boundary to vLLM, whose loaders raise anything
            raise load_error(FilePath(path), error) from error
        old = self._loras.get(name)
        self._loras[name] = lora
        if old is not None:
            await backend.remove_lora(old.lora_int_id)

    async def unload_adapter(self, name: str) -> None:
        backend, lora = await self._ready(None, name)
        assert lora is not None
        del self._loras[name]
        await backend.remove_lora(lora.lora_int_id)

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Its drafter, in vLLM's process, knows only what vLLM shows it: prompts and outputs."""

    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._loras))

    async def _run(
        self,
        backend: Backend,
        id: str,
        parts: Sequence[tuple[list[int], Any]],
        lora: Any,
        priority: int,
    ) -> AsyncGenerator[tuple[int, Any]]:
        """(number of the part, what vLLM made) of all parts of one request, as it comes, None at the end of a part;
        errors are ours."""
        ids = [f"{id}/{number}" for number in range(len(parts))]
        rank = priority if self.config.extra.get("scheduling_policy") == "priority" else 0
        self._live[id] = ids
        streams = [
            backend.generate(part, prompt, params, lora=lora, priority=rank)
            for part, (prompt, params) in zip(ids, parts, strict=True)
        ]
        try:
            async with aclosing(_merged(streams)) as items:
                async for item in items:
                    yield item
        except ReasonError:
            raise
        except Exception as error:  # the boundary to vLLM
            raise wire.mapped(error) from error
        finally:
            del self._live[id]

    async def _ready(self, id: str | None, adapter: str | None) -> tuple[Backend, Any]:
        if self._backend is None:
            raise EngineDead("the engine is not started")
        await self._backend.check()
        if id in self._live:
            raise RequestError(f"request {id!r} is already running", param="id")
        check_adapter(adapter, self._loras)
        return self._backend, None if adapter is None else self._loras[adapter]

    def _checked(self, request: GenerateRequest) -> Sampling:
        """What vLLM would not refuse, or refuse late. Raises RequestError, CapabilityMissing."""
        sampling = request.sampling
        check_counts(request)
        if sampling.draft not in ("default", *self.caps.drafting):
            loaded = self.caps.drafting[0]
            raise CapabilityMissing(
                f"vLLM drafts with what was loaded at start ({loaded}), not with {sampling.draft!r}",
                param="reasoning.draft",
                code="capability_missing",
            )
        return sampling


async def _merged(streams: Sequence[AsyncGenerator[Any]]) -> AsyncGenerator[tuple[int, Any]]:
    """(number of the stream, its item), as they come; None ends one. Closing it closes them all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        yield 0, None
        return
    items: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def pump(number: int, stream: AsyncGenerator[Any]) -> None:
        async with aclosing(stream):
            async for item in stream:
                items.put_nowait((number, item))
        items.put_nowait((number, None))

    async def pump_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for number, stream in enumerate(streams):
                    group.create_task(pump(number, stream))
        except* Exception as failed:
            items.put_nowait((-1, failed.exceptions[0]))
        else:
            items.put_nowait((-1, None))

    pumps = asyncio.create_task(pump_all())
    try:
        while True:
            number, item = await items.get()
            if number < 0:
                if item is not None:
                    raise item
                return
            yield number, item
    finally:
        pumps.cancel()
        await asyncio.wait([pumps])


def _replace_products(folder: FilePath) -> bool:
    """See `_vllm_quantised`. Raises ModelLoadError where this vLLM has other kernels."""
    from reason_engine.engines.vllm.cpu_repairs import replace_products

    try:
        return replace_products()
    except (ImportError, AttributeError) as error:
        raise load_error(folder, error) from error
