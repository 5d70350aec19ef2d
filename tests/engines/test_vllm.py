"""The vLLM engine on the CPU build, with a tiny random model. Runs in the environment of `make test-vllm`."""

from __future__ import annotations

import asyncio
import gc
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from reason_engine.contracts import Engine
from reason_engine.engines.vllm import VllmConfig, VllmEngine
from reason_engine.errors import (
    CapabilityMissing,
    ContextLengthExceeded,
    EngineDead,
    ModelLoadError,
    RequestError,
    UnknownModel,
)
from reason_engine.types import (
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    Message,
    Sampling,
    ScoreRequest,
    Structured,
)
from tests.engines.contract import EngineContract, prompt_of, request
from tests.engines.contract import read as contract_read
from tests.models import write_model
from tests.strategies.reuse import SEARCHES, reads_its_prompt_once, search

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here (make test-vllm)"),
    # of vLLM and torch, at import
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
GREEDY = Sampling(temperature=0.0, max_tokens=12, ignore_eos=True)
EOS = 258


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's CPU attention wants heads of 32 at least
    return write_model(tmp_path_factory.mktemp("tiny"), head_dim=32, max_position_embeddings=2048)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[VllmEngine]:
    made = VllmEngine(VllmConfig(model=str(folder), dtype="float32", name="tiny"))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())


async def read(engine: VllmEngine, request: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


async def run(
    engine: VllmEngine, prompt: str | tuple[int, ...] = "hello", *, id: str = "r", n: int = 1,
    adapter: str | None = None, sampling: Sampling = GREEDY,
) -> list[Chunk]:  # fmt: skip
    return await read(engine, GenerateRequest(id, prompt, n=n, sampling=sampling, adapter=adapter))


def text(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def ids(chunks: list[Chunk], index: int = 0) -> tuple[int, ...]:
    return tuple(token for chunk in chunks if chunk.index == index for token in chunk.token_ids)


async def idle(engine: VllmEngine) -> bool:
    """Whether nothing runs in vLLM's scheduler, after all that was asked of its thread."""
    backend: Any = engine._backend
    scheduler = backend._llm.engine_core.engine_core.scheduler
    unfinished = await backend._call(scheduler.get_num_unfinished_requests)
    return unfinished == 0 and (await engine.health()).running == 0


async def test_tells_what_it_is(engine: VllmEngine, folder: Path) -> None:
    assert (engine.info.name, engine.info.path, engine.info.context) == ("tiny", str(folder), 2048)
    assert engine.info.fingerprint.startswith("vllm-0.")
    assert engine.caps.exact_budget
    assert engine.caps.continuation
    health = await engine.health()
    assert (health.ready, health.live, health.running) == (True, True, 0)


async def test_streams_deltas_and_counts_every_token(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    chunks = await run(engine, n=3, sampling=replace(GREEDY, temperature=1.0, seed=3))
    assert [len(ids(chunks, index)) for index in range(3)] == [12, 12, 12]
    assert all(chunk.token_count == len(chunk.token_ids) for chunk in chunks)
    assert sum(chunk.token_count for chunk in chunks) == 36
    assert (await engine.health()).generated_tokens - before == 36
    assert len(chunks) > 12
    assert [(c.index, c.prompt_tokens) for c in chunks if c.prompt_tokens] == [(0, 5)]
    assert next(c for c in chunks if c.index == 0).prompt_tokens == 5
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["length"] * 3


async def test_greedy_is_the_same_again_in_a_batch_and_in_samples(engine: VllmEngine) -> None:
    alone = await run(engine)
    async with asyncio.TaskGroup() as group:
        others = [group.create_task(run(engine, f"other {i}", id=f"o{i}")) for i in range(4)]
        again = group.create_task(run(engine, n=3))
    assert ids(again.result(), 0) == ids(again.result(), 1) == ids(again.result(), 2) == ids(alone)
    assert [c.prompt_tokens for c in again.result() if c.prompt_tokens] == [5]
    assert len({ids(other.result()) for other in others}) > 1


async def test_sample_i_draws_with_seed_plus_i(engine: VllmEngine) -> None:
    hot = replace(GREEDY, temperature=1.0, seed=40)
    together = await run(engine, n=3, sampling=hot)
    for index in range(3):
        assert ids(await run(engine, sampling=replace(hot, seed=40 + index))) == ids(together, index)
    assert len({ids(together, index) for index in range(3)}) == 3


async def test_a_crowd_of_seeded_samples_is_read_whole(engine: VllmEngine) -> None:
    """Sixty new prompts at once are more tokens than one step takes: none may be read in parts on the CPU."""
    sampling = replace(GREEDY, temperature=1.0, seed=5, max_tokens=4)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(run(engine, f"crowd {i} " * 12, id=f"crowd{i}", n=16, sampling=sampling))
            for i in range(4)
        ]
    assert all(len(ids(task.result(), 15)) == 4 for task in tasks)
    assert (await engine.health()).ready


async def test_the_end_token_is_counted_and_not_shown(engine: VllmEngine) -> None:
    chunks = await run(engine, sampling=Sampling(temperature=0.0, logit_bias=((EOS, 100.0),)))
    assert (ids(chunks), text(chunks)) == ((EOS,), "")
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == ("stop", None)
    ignored = await run(engine, sampling=replace(GREEDY, logit_bias=((EOS, 100.0),)))
    assert (ids(ignored), ignored[-1].finish_reason) == ((EOS,) * 12, "length")


async def test_stop_strings_end_the_text_before_them(engine: VllmEngine) -> None:
    hot = Sampling(temperature=1.0, seed=1, max_tokens=60, ignore_eos=True)
    whole = text(await run(engine, sampling=hot))
    stop = next(whole[at : at + 3] for at in range(10, 50) if whole[at : at + 3].isascii())
    before = whole[: whole.index(stop)]
    chunks = await run(engine, sampling=replace(hot, stop=("never", stop)))
    assert (text(chunks), chunks[-1].finish_reason, chunks[-1].stop_reason) == (before, "stop", stop)
    kept = await run(engine, sampling=replace(hot, stop=(stop,), include_stop=True))
    assert text(kept) == before + stop
    assert len(ids(chunks)) < 60


async def test_stop_tokens_are_named(engine: VllmEngine) -> None:
    hot = Sampling(temperature=1.0, seed=1, max_tokens=60, ignore_eos=True)
    whole = ids(await run(engine, sampling=hot))
    chunks = await run(engine, sampling=replace(hot, stop_token_ids=(whole[20],)))
    assert ids(chunks) == whole[: whole.index(whole[20]) + 1]
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == ("stop", whole[20])


async def test_logprobs_are_the_models_own(engine: VllmEngine) -> None:
    chunks = await run(engine, sampling=replace(GREEDY, logprobs=3))
    places = [place for chunk in chunks for place in chunk.logprobs]
    assert [place.token_id for place in places] == list(ids(chunks))
    for place in places:
        assert len(place.top) == 3
        assert place.top[0][0] == place.token_id
        assert place.top[0][2] == place.logprob >= place.top[1][2] >= place.top[2][2]
    bare = await run(engine, sampling=replace(GREEDY, logprobs=0))
    assert all(chunk.logprobs[0].top == () for chunk in bare)
    assert [c.logprobs[0].logprob for c in bare] == pytest.approx(
        [place.logprob for place in places], abs=1e-4
    )
    assert not any(chunk.logprobs for chunk in await run(engine))


async def test_a_path_is_continued_where_it_ended(engine: VllmEngine) -> None:
    prompt = tuple(engine.tokenize(engine.render_chat([Message("user", "hello")])))
    whole = ids(await run(engine, prompt))
    first = ids(await run(engine, prompt, sampling=replace(GREEDY, max_tokens=5)))
    rest = ids(await run(engine, prompt + first, sampling=replace(GREEDY, max_tokens=7)))
    assert first + rest == whole
    assert engine.detokenize(prompt).endswith("assistant\n")


async def test_a_long_prefix_is_read_once(engine: VllmEngine) -> None:
    prompt = "y" * 700
    first = await run(engine, prompt)
    second = await run(engine, prompt + "z", n=2)
    assert (first[0].prompt_tokens, first[0].cached_tokens) == (700, 0)
    assert second[0].prompt_tokens == 701
    assert sum(chunk.cached_tokens for chunk in second) == 640  # blocks of 128


@pytest.mark.parametrize(("name", "fields"), SEARCHES)
async def test_a_search_over_steps_reads_its_prompt_once(
    engine: VllmEngine, name: str, fields: dict[str, object]
) -> None:
    await reads_its_prompt_once(engine, search(name, fields), f"{name} {sorted(fields)}")


class Endless:
    """A request that would run to the end of the context, read until each of its samples has begun."""

    def __init__(self, engine: VllmEngine, n: int) -> None:
        self.engine, self.n = engine, n
        sampling = Sampling(temperature=1.0, max_tokens=2000, ignore_eos=True)
        self.stream: AsyncIterator[Chunk] = engine.generate(
            GenerateRequest("e", "hello", n=n, sampling=sampling)
        )
        self.chunks: list[Chunk] = []

    async def begin(self) -> None:
        while len({chunk.index for chunk in self.chunks}) < self.n:
            self.chunks.append(await anext(self.stream))


async def test_abort_ends_every_sample_with_a_last_chunk(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    endless = Endless(engine, 4)
    await endless.begin()
    assert (await engine.health()).running == 4
    await engine.abort("e")
    endless.chunks += [chunk async for chunk in endless.stream]
    last = {chunk.index: chunk.finish_reason for chunk in endless.chunks if chunk.finish_reason}
    assert last == dict.fromkeys(range(4), "abort")
    assert await idle(engine)
    counted = sum(chunk.token_count for chunk in endless.chunks)
    assert (await engine.health()).generated_tokens - before == counted
    await engine.abort("e")
    await engine.abort("never seen")


@pytest.mark.parametrize("greedy", [True, False])
async def test_a_reader_that_leaves_stops_the_engine(engine: VllmEngine, greedy: bool) -> None:
    sampling = Sampling(temperature=0.0 if greedy else 1.0, max_tokens=2000, ignore_eos=True)
    stream = engine.generate(GenerateRequest("e", "hello", n=3, sampling=sampling))
    await anext(stream)
    await stream.aclose()
    assert await idle(engine)


async def test_a_cancelled_reader_stops_the_engine(engine: VllmEngine) -> None:
    endless = Endless(engine, 2)
    await endless.begin()
    begun = asyncio.Event()

    async def reading() -> None:
        async for _ in endless.stream:
            begun.set()

    task = asyncio.create_task(reading())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await endless.stream.aclose()
    assert await idle(engine)


async def test_an_id_is_taken_while_it_runs(engine: VllmEngine) -> None:
    endless = Endless(engine, 1)
    await endless.begin()
    with pytest.raises(RequestError, match="running already"):
        await run(engine, id="e")
    await endless.stream.aclose()
    assert ids(await run(engine, id="e"))


async def test_the_context_is_a_wall(engine: VllmEngine) -> None:
    with pytest.raises(ContextLengthExceeded, match="2048"):
        await run(engine, "x" * 2048)
    chunks = await run(engine, "x" * 2045, sampling=replace(GREEDY, max_tokens=100))
    assert (len(ids(chunks)), chunks[-1].finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        (Structured(regex="[0-9]{4}"), str.isdigit),
        (Structured(choice=("alpha", "beta")), lambda made: made in ("alpha", "beta")),
        (Structured(json_schema='{"type": "boolean"}'), lambda made: made in ("true", "false")),
    ],
)
async def test_structured_output(
    engine: VllmEngine, constraint: Structured, fits: Callable[[str], bool]
) -> None:
    made = text(await run(engine, sampling=Sampling(temperature=1.0, max_tokens=30, structured=constraint)))
    assert fits(made), made


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"temperature": -1.0}, "temperature"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_k": -5}, None),
    ({"min_p": 2.0}, None),
    ({"repetition_penalty": 0.0}, None),
    ({"presence_penalty": 9.0}, None),
    ({"logprobs": 99}, "logprobs"),
    ({"logit_bias": ((99999, 1.0),)}, None),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stop": ("",)}, None),
    ({"structured": Structured(json_schema="{nonsense")}, None),
    ({"structured": Structured(regex="(((")}, None),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
async def test_a_wrong_request_is_refused_and_harms_nobody(
    engine: VllmEngine, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(RequestError) as caught:
        await run(engine, sampling=Sampling(**fields))
    if param:
        assert caught.value.param == param
    assert "\n" not in str(caught.value)
    assert await idle(engine)
    assert len(ids(await run(engine))) == 12


@pytest.mark.parametrize("prompt", ["", (), (5, 99999), (-1,)])
async def test_a_wrong_prompt_is_refused(engine: VllmEngine, prompt: str | tuple[int, ...]) -> None:
    with pytest.raises(RequestError):
        await run(engine, prompt)
    with pytest.raises(RequestError):
        await run(engine, n=0)


async def test_what_was_not_loaded_is_missing(engine: VllmEngine) -> None:
    with pytest.raises(CapabilityMissing, match="at start"):
        await run(engine, sampling=Sampling(draft="sam"))
    with pytest.raises(CapabilityMissing):
        await engine.score(ScoreRequest("s", ("x",)))
    with pytest.raises(CapabilityMissing, match="enable_lora"):
        await engine.load_adapter("a", "/nowhere")
    with pytest.raises(UnknownModel):
        await run(engine, adapter="a")
    assert ids(await run(engine, sampling=replace(GREEDY, draft="none")))


async def test_choose_is_the_models_probability_of_one_token(engine: VllmEngine) -> None:
    place = (await run(engine, sampling=replace(GREEDY, max_tokens=1, logprobs=8)))[0].logprobs[0]
    shown = [(token, logprob) for _, token, logprob in place.top if "!" <= token <= "~"]
    shown = shown[:2]
    chosen = await engine.choose(ChoiceRequest("c", "hello", tuple(token for token, _ in shown)))
    shares = [math.exp(logprob) for _, logprob in shown]
    assert chosen.mass == pytest.approx(sum(shares), rel=1e-3)
    assert chosen.probabilities == pytest.approx([share / sum(shares) for share in shares], rel=1e-3)
    assert (chosen.completion_tokens, chosen.prompt_tokens) == (1, 5)


async def test_choose_multiplies_the_tokens_of_an_option(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    whole = await engine.choose(ChoiceRequest("c", "hello", ("ab", "ac", "d")))
    assert whole.completion_tokens == 2 == (await engine.health()).generated_tokens - before
    first = await engine.choose(ChoiceRequest("c", "hello", ("a", "d")))
    second = await engine.choose(ChoiceRequest("c", "helloa", ("b", "c")))
    a, d = (share * first.mass for share in first.probabilities)
    b, c = (share * second.mass for share in second.probabilities)
    assert sum(whole.probabilities) == pytest.approx(1)
    absolute = [share * whole.mass for share in whole.probabilities]
    assert absolute == pytest.approx([a * b, a * c, d], rel=1e-3)


@pytest.mark.parametrize("options", [(), ("a", "a"), ("", "a")])
async def test_choose_refuses_options_it_cannot_tell_apart(
    engine: VllmEngine, options: tuple[str, ...]
) -> None:
    with pytest.raises(RequestError):
        await engine.choose(ChoiceRequest("c", "hello", options))


async def test_a_failing_step_kills_the_engine_and_says_so(folder: Path) -> None:
    engine = VllmEngine(VllmConfig(model=str(folder), dtype="float32"))
    await engine.start()
    endless = Endless(engine, 2)
    await endless.begin()
    backend: Any = engine._backend

    def broken() -> Any:
        raise RuntimeError("out of memory")

    backend._llm.step = broken
    with pytest.raises(EngineDead, match="out of memory"):
        async for _ in endless.stream:
            pass
    with pytest.raises(EngineDead):
        await run(engine)
    health = await engine.health()
    assert (health.ready, health.live) == (False, False)
    await engine.close()


async def test_a_closed_engine_ends_its_requests_and_takes_no_more(folder: Path) -> None:
    engine = VllmEngine(VllmConfig(model=str(folder), dtype="float32"))
    with pytest.raises(EngineDead):
        await run(engine)
    assert not (await engine.health()).ready
    await engine.start()
    endless = Endless(engine, 2)
    await endless.begin()
    await engine.close()
    await engine.close()
    left = [chunk async for chunk in endless.stream]
    assert [chunk.finish_reason for chunk in left[-2:]] == ["abort", "abort"]
    with pytest.raises(EngineDead):
        await run(engine)


class TestContract(EngineContract):
    """The engine keeps the contract of all engines, but for one half of a promise: vLLM's random generator begins anew
    with every request, so a continuation draws other tokens than the whole would have. Greedy paths go on the same."""

    async def test_a_continuation_on_token_ids_equals_the_whole(self, engine: Engine) -> None:
        prompt = prompt_of(engine)
        [whole] = await contract_read(engine, request(prompt))
        [begun] = await contract_read(engine, request(prompt, replace(GREEDY, max_tokens=5)))
        ids = tuple(engine.tokenize(prompt)) + begun.ids
        [rest] = await contract_read(engine, request(ids, replace(GREEDY, max_tokens=7)))
        assert begun.ids + rest.ids == whole.ids
        assert rest.prompt_tokens == len(ids)


def write_adapter(folder: Path, seed: int) -> Path:
    """A random LoRA of rank 4 on the query and value projections of the tiny model."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    tensors: dict[str, Any] = {}
    for layer in range(2):
        for name, width in (("q_proj", 128), ("v_proj", 64)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(4, 64)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(width, 4)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


async def test_adapters_and_the_base_do_not_mix(folder: Path, tmp_path: Path) -> None:
    engine = VllmEngine(
        VllmConfig(model=str(folder), dtype="float32", enable_lora=True, max_loras=2, max_adapters=2)
    )
    await engine.start()
    base = ids(await run(engine))
    for name, seed in (("a", 1), ("b", 2)):
        await engine.load_adapter(name, str(write_adapter(tmp_path / name, seed)))
    assert engine.adapters() == ("a", "b")
    alone = {name: ids(await run(engine, adapter=name)) for name in ("a", "b")}
    assert len({base, *alone.values()}) == 3
    async with asyncio.TaskGroup() as group:
        mixed = {
            name: group.create_task(run(engine, id=str(name), adapter=name)) for name in (None, "a", "b")
        }
    assert {name: ids(task.result()) for name, task in mixed.items()} == {None: base, **alone}

    await engine.load_adapter("a", str(write_adapter(tmp_path / "new", 3)))
    assert ids(await run(engine, adapter="a")) not in (alone["a"], base)
    await engine.unload_adapter("a")
    assert engine.adapters() == ("b",)
    with pytest.raises(UnknownModel):
        await run(engine, adapter="a")
    with pytest.raises(UnknownModel):
        await engine.unload_adapter("a")
    with pytest.raises(ModelLoadError):
        await engine.load_adapter("c", str(tmp_path / "nowhere"))
    broken = write_adapter(tmp_path / "broken", 4)
    (broken / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4096, "target_modules": []}')
    with pytest.raises(ModelLoadError):
        await engine.load_adapter("c", str(broken))
    await engine.load_adapter("a", str(tmp_path / "a"))
    with pytest.raises(RequestError, match="unload one"):
        await engine.load_adapter("c", str(tmp_path / "new"))
    assert ids(await run(engine, adapter="a")) == alone["a"]
    assert ids(await run(engine, adapter="b")) == alone["b"]
    await engine.close()


@pytest.mark.parametrize("content", [{}, {"architectures": ["NoSuchModel"], "model_type": "qwen3"}])
async def test_a_checkpoint_that_vllm_cannot_load_is_one_line(
    folder: Path, tmp_path: Path, content: Any
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelLoadError, match="vLLM cannot load it") as caught:
        await VllmEngine(VllmConfig(model=str(tmp_path))).start()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # AsyncLLM leaves a ZeroMQ context to the collector
async def test_processes_of_its_own_behave_the_same(engine: VllmEngine, folder: Path) -> None:
    apart = VllmEngine(VllmConfig(model=str(folder), dtype="float32", mode="async"))
    await apart.start()
    try:
        hot = replace(GREEDY, temperature=1.0, seed=9)
        for n, sampling in ((1, GREEDY), (2, GREEDY), (3, hot)):
            here, there = await run(engine, n=n, sampling=sampling), await run(apart, n=n, sampling=sampling)
            assert [ids(here, index) for index in range(n)] == [ids(there, index) for index in range(n)]
        endless = Endless(apart, 3)
        await endless.begin()
        await apart.abort("e")
        endless.chunks += [chunk async for chunk in endless.stream]
        assert [c.finish_reason for c in endless.chunks if c.finish_reason] == ["abort"] * 3
        stream = apart.generate(GenerateRequest("e", "hello", n=3, sampling=replace(GREEDY, max_tokens=2000)))
        await anext(stream)
        await stream.aclose()
        assert (await apart.health()).running == 0
        with pytest.raises(RequestError):
            await run(apart, sampling=Sampling(logit_bias=((99999, 1.0),)))
        assert (await apart.health()).generated_tokens >= 12 + 24 + 36
    finally:
        await apart.close()
    with pytest.raises(EngineDead):
        await run(apart)
    gc.collect()


# Last: drafting loads numba, and vLLM's search for kernels then stumbles over it when another engine is built.
@pytest.mark.filterwarnings("ignore::Warning")  # numba compiles with a deprecation of its own
async def test_drafting_changes_the_speed_and_not_the_text(engine: VllmEngine, folder: Path) -> None:
    loaded = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    drafting = VllmEngine(VllmConfig(model=str(folder), dtype="float32", speculative_config=loaded))
    await drafting.start()
    assert drafting.caps.drafting == ("ngram",)
    longer = replace(GREEDY, max_tokens=40)
    plain, drafted = await run(engine, sampling=longer), await run(drafting, sampling=longer)
    assert ids(drafted) == ids(plain)
    assert sum(chunk.draft_accepted + chunk.draft_rejected for chunk in drafted) > 0
    assert sum(chunk.token_count for chunk in drafted) == 40 == (await drafting.health()).generated_tokens
    with pytest.raises(CapabilityMissing):
        await run(drafting, sampling=replace(GREEDY, draft="none"))
    await drafting.close()
