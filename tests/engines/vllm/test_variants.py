"""vLLM engines of another kind: with adapters, in processes of its own, with drafting. Last, since drafting is."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines.vllm.drafts import speculation
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.errors import CapabilityMissing, EngineDead, ModelLoadError, RequestError, UnknownModel
from reason_engine.types import GenerateRequest, Sampling
from tests.engines.adapter_files import write
from tests.engines.vllm.tiny import GREEDY, MARKS, Endless, ids, run

pytestmark = MARKS


def write_adapter(folder: Path, seed: int, *, hidden: int = 64, layers: int = 2, rank: int = 4) -> Path:
    """A random LoRA on the query and value projections of the tiny model."""
    import torch

    torch.manual_seed(seed)
    tensors: dict[str, Any] = {}
    for layer in range(layers):
        for name, width in (("q_proj", 128), ("v_proj", 64)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, hidden)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(width, rank)
    targets = ["q_proj", "v_proj"]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets, "bias": "none"}
    return write(folder, tensors, config)


async def test_adapters_and_the_base_do_not_mix(folder: Path, tmp_path: Path) -> None:
    engine = VllmEngine(VllmConfig(model=str(folder), dtype="float32", enable_lora=True, max_loras=2, max_adapters=2))
    await engine.start()
    base = ids(await run(engine))
    for name, seed in (("a", 1), ("b", 2)):
        await engine.load_adapter(name, str(write_adapter(tmp_path / name, seed)))
    assert engine.adapters() == ("a", "b")
    alone = {name: ids(await run(engine, adapter=name)) for name in ("a", "b")}
    assert len({base, *alone.values()}) == 3
    async with asyncio.TaskGroup() as group:
        mixed = {name: group.create_task(run(engine, id=str(name), adapter=name)) for name in (None, "a", "b")}
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
async def test_a_checkpoint_that_vllm_cannot_load_is_one_line(folder: Path, tmp_path: Path, content: Any) -> None:
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
@pytest.mark.parametrize("draft", ["sam", "ngram"])
@pytest.mark.filterwarnings("ignore::Warning")  # numba compiles with a deprecation of its own
async def test_drafting_changes_the_speed_and_not_the_text(engine: VllmEngine, folder: Path, draft: Any) -> None:
    drafting = VllmEngine(VllmConfig(model=str(folder), dtype="float32", speculative_config=speculation(draft)))
    await drafting.start()
    assert drafting.caps.drafting == (draft,)
    longer = replace(GREEDY, max_tokens=60)
    hot = replace(longer, temperature=0.3, top_k=3, seed=3)
    for sampling, n in ((longer, 1), (hot, 4)):
        plain = await run(engine, "abab", n=n, sampling=sampling)
        drafted = await run(drafting, "abab", n=n, sampling=replace(sampling, draft=draft))
        if sampling is longer:  # sampled text is vLLM's own business: its checker draws other numbers
            assert ids(drafted) == ids(plain)
        assert sum(chunk.draft_accepted + chunk.draft_rejected for chunk in drafted) > 0
        assert sum(chunk.token_count for chunk in drafted) == 60 * n
    assert (await drafting.health()).generated_tokens == 5 * 60
    with pytest.raises(RequestError, match="min_p and logit_bias"):  # refused by vLLM while it drafts
        await run(drafting, sampling=replace(GREEDY, logit_bias=((65, 1.0),)))
    with pytest.raises(CapabilityMissing, match=rf"loaded at start \({draft}\), not with 'none'"):
        await run(drafting, sampling=replace(GREEDY, draft="none"))
    await drafting.close()
