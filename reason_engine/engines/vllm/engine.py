"""vLLM as an engine, releases 0.26 to 0.33: AsyncLLM on accelerators, LLMEngine in a thread on the CPU build.

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
from reason_engine.engines import check_adapter, check_counts, engines, room_left
from reason_engine.engines.chat import AS_FOUND, ChatFormat, ChatTextMethods, Parsers
from reason_engine.engines.checkpoint.adapter_files import check_fits, only_lora, read_adapter
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.engines.text import Vocabulary, token_ids_of
from reason_engine.engines.vllm import cpu_repairs, thinking
from reason_engine.engines.vllm.arguments import engine_arguments
from reason_engine.engines.vllm.backend import Backend, ProcessBackend, ThreadBackend
from reason_engine.engines.vllm.configuration import VllmConfig, runs_inprocess
from reason_engine.engines.vllm.drafts import V2_SINCE, drafter_name, drafts_with
from reason_engine.engines.vllm.failures import load_error, mapped_error
from reason_engine.engines.vllm.outputs import chunk_of, leave_tokens_undecoded
from reason_engine.engines.vllm.release import prepare_process, require_vllm, vllm_module
from reason_engine.engines.vllm.requests import option_params, sampling_params
from reason_engine.errors import CapabilityMissing, EngineDead, EngineError, ModelLoadError, ReasonError, RequestError
from reason_engine.types import Choice, ChoiceRequest, Chunk, GenerateRequest, ModelInfo, ScoreRequest, Scores


@engines.register("vllm")
class VllmEngine(ChatTextMethods):
    """Constructing it loads nothing; `start` checks the folder, then loads the weights."""

    def __init__(
        self,
        config: VllmConfig,
        *,
        rewards: Mapping[str, str] | None = None,
        reward_keys: Mapping[str, SecretStr] | None = None,
        parsers: Parsers = AS_FOUND,
    ) -> None:
        """`rewards`: reward models behind endpoints, by name; `parsers`: what the operator named of the chat format.
        Raises SetupError for a reward model that is a folder."""
        self.config, self._parsers = config, parsers
        self._rewards = served = Endpoints(rewards or {}, keys=reward_keys)
        self.caps = Capabilities(
            logprobs=config.max_logprobs, token_ids=True, continuation=True, choose=True, score=bool(served.kinds),
            rewards=tuple(served.kinds.items()), aggregates=tuple(served.aggregates.items()), embeds=served.embeds,
            adapters=config.enable_lora, structured=True,
            drafting=(drafter_name(config.speculative_config),), exact_budget=True, sample_abort=True,
        )  # fmt: skip
        self._backend: Backend | None = None
        self._format: ChatFormat
        self._words: Vocabulary
        self._limits_thoughts = False
        self.info: ModelInfo
        self._loras: dict[str, Any] = {}
        self._lora_count = 0
        self._running: dict[str, list[str]] = {}

    async def start(self) -> None:
        """Load the model. Raises MissingExtra, ModelLoadError."""
        release = require_vllm()
        files = ModelFolder.find(self.config.model)
        folder, _ = files.path, files.weight_files
        self._format = ChatFormat.load(folder, self._parsers)
        self._words = Vocabulary(self._format.tokenizer)
        inprocess = runs_inprocess(self.config, release)
        prepare_process(inprocess=inprocess)
        backend = ThreadBackend() if inprocess else ProcessBackend()
        try:
            quantised = release.cpu and inprocess and files.quantization is not None
            replaced = quantised and cpu_repairs.replace_quantised_products()
            arguments = engine_arguments(self.config, folder, release=release, replaced=replaced)
            described = self._format.info("", "", 0, "")
            arguments |= thinking.arguments_for(described, self._format.single_tokens, arguments)
            if repaired := release.cpu and inprocess and thinking.offers_budget():
                cpu_repairs.find_ends_of_thoughts()
            if release.number >= V2_SINCE:
                leave_tokens_undecoded()
            if release.cpu and inprocess:
                cpu_repairs.look_past_llvmlite()
                cpu_repairs.leave_out_ranks()
            if self.config.enable_lora and release.cpu:
                cpu_repairs.mask_base_rows()
            if self.config.speculative_config and release.cpu:
                cpu_repairs.repair_drafting()
            context = await backend.start(arguments)
        except ReasonError:
            raise
        except Exception as error:  # the boundary to vLLM, whose loaders raise anything
            raise load_error(folder, error) from error
        name, fingerprint = self.config.name or folder.resolve().name, f"vllm-{release.version}-{files.fingerprint}"
        self.info = self._format.info(name, str(folder), context, fingerprint)
        self._limits_thoughts = thinking.holds_budget(backend.config, repaired=repaired)
        drafts = drafts_with(self.config.speculative_config, arguments, backend.config)
        self.caps = replace(self.caps, drafting=(drafts,))
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
            self._backend.check()
        except EngineDead as error:
            return Health(False, False, running, 0, generated, str(error))
        return Health(True, True, running, 0, generated)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        backend, lora = self._ready(request.id, request.adapter)
        self._check(request)
        sampling = request.sampling
        prompt = token_ids_of(request.prompt, self._format.tokenize)
        room, eos = room_left(len(prompt), self.info.context), self._format.eos_ids
        if not self._limits_thoughts:
            sampling = replace(sampling, thinking=None)
        specials = bool(self._format.shown)
        # One request of vLLM's a sample, as it would make of them itself: so one sample can be aborted, and several
        # greedy ones are not refused
        told = {"room": room, "eos_ids": eos, "specials": specials, "interval": request.interval}
        parts = [(prompt, sampling_params(sampling, index=index, **told)) for index in range(request.n)]
        unfinished, prompt_counted = set(range(request.n)), False
        async with aclosing(self._run(backend, request.id, parts, lora, request.priority)) as outputs:
            async for index, output in outputs:
                if output is None:
                    chunks = [Chunk(index, finish_reason="abort")] if index in unfinished else []
                else:
                    made = output.outputs
                    chunks = [chunk_of(each, index, sampling, eos, self._words.text_of) for each in made]
                for chunk in chunks:
                    if not (chunk.token_ids or chunk.text or chunk.finish_reason):
                        continue
                    if index == 0 and not prompt_counted:
                        prompt_counted = True
                        cached = (output.num_cached_tokens or 0) if output else 0
                        chunk = replace(chunk, prompt_tokens=len(prompt), cached_tokens=cached)
                    if chunk.finish_reason:
                        unfinished.discard(index)
                    yield chunk

    async def abort(self, request_id: str, index: int | None = None) -> None:
        for place, part in enumerate(self._running.get(request_id, ())):
            if index in (None, place):
                assert self._backend is not None
                await self._backend.abort(part)

    async def choose(self, request: ChoiceRequest) -> Choice:
        """Raises RequestError for an empty option, or for two that are the same tokens."""
        backend, lora = self._ready(request.id, request.adapter)
        options = [tuple(self._format.tokenize_bare(option)) for option in request.options]
        if not options or not all(options) or len(set(options)) < len(options):
            raise RequestError("options must be distinct and not empty", param="options")
        prompt = token_ids_of(request.prompt, self._format.tokenize)
        room_left(len(prompt) + max(map(len, options)), self.info.context)
        forks: dict[tuple[int, ...], set[int]] = {}
        for option in options:
            for at, token in enumerate(option):
                forks.setdefault(option[:at], set()).add(token)
        starts, logprobs = list(forks), dict[tuple[int, ...], float]()
        parts = [([*prompt, *start], option_params(sorted(forks[start]))) for start in starts]
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
        most = self.config.max_adapters
        if name not in self._loras and len(self._loras) >= most:
            raise RequestError(f"{most} adapters are loaded; unload one first", param="name")
        backend, _ = self._ready(None, None)
        check_fits(file, FilePath(self.info.path))
        self._lora_count += 1
        # vLLM keys its prefix cache by the adapter's name, so new weights need a new one
        own_name = f"{name}#{self._lora_count}"
        lora = vllm_module("lora.request").LoRARequest(own_name, self._lora_count, str(path))
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
        backend, lora = self._ready(None, name)
        assert lora is not None
        del self._loras[name]
        await backend.remove_lora(lora.lora_int_id)

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Its drafter, in vLLM's process, knows only what vLLM shows it: prompts and outputs."""

    def adapters(self) -> tuple[str, ...]:
        return tuple(sorted(self._loras))

    async def _run(
        self, backend: Backend, id: str, parts: Sequence[tuple[Sequence[int], Any]], lora: Any, priority: int
    ) -> AsyncGenerator[tuple[int, Any]]:
        """(number of the part, what vLLM made) of all parts of one request, as it comes, None at the end of a part;
        errors are ours."""
        ids = [f"{id}/{number}" for number in range(len(parts))]
        rank = priority if self.config.extra.get("scheduling_policy") == "priority" else 0
        self._running[id] = ids
        streams = [
            backend.generate(part, list(prompt), params, lora=lora, priority=rank)
            for part, (prompt, params) in zip(ids, parts, strict=True)
        ]
        try:
            async with aclosing(_merged(streams)) as items:
                async for item in items:
                    yield item
        except ReasonError:
            raise
        except Exception as error:  # the boundary to vLLM
            raise mapped_error(error) from error
        finally:
            del self._running[id]

    def _ready(self, id: str | None, adapter: str | None) -> tuple[Backend, Any]:
        """The backend and the adapter. Raises EngineDead, RequestError for an id that is running, UnknownModel."""
        if self._backend is None:
            raise EngineDead("the engine is not started")
        self._backend.check()
        if id in self._running:
            raise RequestError(f"request {id!r} is already running", param="id")
        check_adapter(adapter, self._loras)
        return self._backend, None if adapter is None else self._loras[adapter]

    def _check(self, request: GenerateRequest) -> None:
        """What vLLM would not refuse, or refuse late. Raises RequestError, CapabilityMissing."""
        check_counts(request)
        if request.sampling.draft not in ("default", *self.caps.drafting):
            raise CapabilityMissing(
                f"vLLM drafts with what was loaded at start ({self.caps.drafting[0]}), not with "
                f"{request.sampling.draft!r}",
                param="reasoning.draft",
                code="capability_missing",
            )


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
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for number, stream in enumerate(streams):
                    group.create_task(pump(number, stream))
        except* Exception as failed:
            failure = failed.exceptions[0]
        items.put_nowait((-1, failure))

    pumps = asyncio.create_task(pump_all())
    try:
        while (item := await items.get())[0] >= 0:
            yield item
        if item[1] is not None:
            raise item[1]
    finally:
        pumps.cancel()
        await asyncio.wait([pumps])
