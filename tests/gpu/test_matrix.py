"""Every kind of model on both engines where an accelerator is: int4, int8, LoRA, pruned, drafting by SAM.

    make gpu

Both engines answer the same prompts greedily in bf16; the first tokens must agree nearly always, which a wrong layout,
scale or group would not leave. 4 and 8 bits are checked against the model in full as well. Elsewhere all are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from reason_engine.compression.run import prepare, run
from reason_engine.contracts import Engine
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import has_gpu
from reason_engine.engines.vllm.drafts import speculation
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.types import GenerateRequest, Sampling
from tests.engines.adapter_files import write
from tests.models import write_model
from tests.quantised import write_int4

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not has_gpu(), reason="no accelerator is here (CUDA_VISIBLE_DEVICES, /dev/nvidia0, /dev/kfd)"),
    pytest.mark.filterwarnings("ignore"),
]
NO_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason='vLLM is not installed: pip install -e ".[vllm]"')
DEVICE = "cuda"
PROMPTS = [f"{n} and {n * 7} are " for n in range(24)]
GREEDY = Sampling(temperature=0.0, max_tokens=16, ignore_eos=True)
WIDE = {
    "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
}  # fmt: skip
"""Sizes that every kernel takes: multiples of 128."""


class Case(NamedTuple):
    """What is served. `draft`: how it is drafted; `adapter`: a folder that is loaded and asked."""

    folder: Path
    draft: Any = "none"
    adapter: Path | None = None


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gpu") / "base", dtype="bfloat16", **WIDE)


def int4(base: Path, out: Path) -> Case:
    return Case(write_int4(base, out, group=128, symmetric=True))


def int8(base: Path, out: Path) -> Case:
    run("int8", prepare("int8", None, ["report=false"]), str(base), out)
    return Case(out)


def pruned(base: Path, out: Path) -> Case:
    text = out.with_suffix(".txt")
    text.write_text("Numbers are counted from nought, and no two of them are the same. " * 60)
    settings = ["report=false", f"data={text}", "by=width", "rate=0.3", "multiple=64", "kv_heads=3"]
    run("prune", prepare("prune", None, settings), str(base), out)
    return Case(out)


def lora(base: Path, out: Path) -> Case:
    import torch

    torch.manual_seed(1)
    tensors: dict[str, Any] = {}
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(8, 256)
            tensors[f"{stem}.lora_B.weight"] = torch.randn(256, 8)
    config = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "bias": "none",
    }  # fmt: skip
    return Case(base, adapter=write(out, tensors, config))


def sam(base: Path, out: Path) -> Case:
    return Case(base, draft="sam")


def embedded(case: Case, device: str = DEVICE) -> Engine:
    return Embedded(case.folder, inline=True, device=device, dtype="bfloat16")


def vllm(case: Case) -> Engine:
    config = VllmConfig(
        model=str(case.folder),
        dtype="bfloat16",
        enforce_eager=True,
        gpu_memory_utilization=0.2,
        enable_lora=case.adapter is not None,
        speculative_config=speculation(case.draft),
    )
    return VllmEngine(config)


async def answers(engine: Engine, case: Case) -> list[tuple[int, ...]]:
    """Greedy tokens of every prompt, all at once."""
    await engine.start()
    try:
        adapter = "adapted" if case.adapter else None
        if case.adapter:
            await engine.load_adapter("adapted", str(case.adapter))
        sampling = replace(GREEDY, draft=case.draft)

        async def one(number: int, prompt: str) -> tuple[int, ...]:
            request = GenerateRequest(f"m{number}", prompt, sampling=sampling, adapter=adapter)
            return tuple([token async for chunk in engine.generate(request) for token in chunk.token_ids])

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*item)) for item in enumerate(PROMPTS)]
        return [task.result() for task in tasks]
    finally:
        await engine.close()


def firsts(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> int:
    """Prompts whose first tokens agree; later ones follow from a difference in rounding."""
    return sum(a[:2] == b[:2] for a, b in zip(one, other, strict=True))


MATRIX = [int4, int8, lora, pruned, sam]


@pytest.mark.parametrize("make", MATRIX)
async def test_the_embedded_engine(base: Path, tmp_path: Path, make: Callable[[Path, Path], Case]) -> None:
    """On the accelerator what it says on the processor."""
    case = make(base, tmp_path / "made")
    here, there = await answers(embedded(case), case), await answers(embedded(case, "cpu"), case)
    assert all(len(one) == GREEDY.max_tokens for one in here)
    assert firsts(here, there) >= len(PROMPTS) - 3


@NO_VLLM
@pytest.mark.parametrize("make", MATRIX)
async def test_vllm(base: Path, tmp_path: Path, make: Callable[[Path, Path], Case]) -> None:
    """What the embedded engine says."""
    case = make(base, tmp_path / "made")
    ours, theirs = await answers(embedded(case), case), await answers(vllm(case), case)
    assert all(len(one) == GREEDY.max_tokens for one in theirs)
    assert firsts(ours, theirs) >= len(PROMPTS) - 3
