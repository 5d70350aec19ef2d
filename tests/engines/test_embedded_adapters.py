"""Adapters of the embedded engine against models they were merged into."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import ModelLoadError, UnknownModel
from tests.engines.contract import read, request, together

pytestmark = pytest.mark.asyncio(loop_scope="module")


def write_adapter(folder: Path, seed: int, targets: tuple[str, ...], rank: int = 4, **config: Any) -> Path:
    """A random LoRA adapter of the tiny model, in PEFT's format."""
    import torch
    from safetensors.torch import save_file

    sizes = {
        "q_proj": (64, 64), "k_proj": (64, 32), "v_proj": (64, 32), "o_proj": (64, 64),
        "gate_proj": (64, 96), "up_proj": (64, 96), "down_proj": (96, 64),
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    for layer in range(2):
        for target in targets:
            part = "mlp" if target in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            at = f"base_model.model.model.layers.{layer}.{part}.{target}"
            wide_in, wide_out = sizes[target]
            tensors[f"{at}.lora_A.weight"] = torch.randn(rank, wide_in, generator=generator) * 0.3
            tensors[f"{at}.lora_B.weight"] = torch.randn(wide_out, rank, generator=generator) * 0.3
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    described = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    return folder


def merge(model: Path, adapter: Path, out: Path) -> Path:
    """The model with the adapter added into its weights, worked out apart from the engine."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, out)
    weights = load_file(str(model / "model.safetensors"))
    parts = load_file(str(adapter / "adapter_model.safetensors"))
    for name, a in parts.items():
        if name.endswith("lora_A.weight"):
            b = parts[name.replace("lora_A", "lora_B")]
            target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            weights[target] += (b @ a) * (8 / a.shape[0])
    save_file(weights, str(out / "model.safetensors"), metadata={"format": "pt"})
    return out


ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


async def test_adapters_and_base_mixed_in_one_batch_equal_merged_models(tiny_qwen3: Path, tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a", 1, ALL)
    second = write_adapter(tmp_path / "b", 2, ("q_proj", "v_proj"), rank=2)
    expected: list[str] = []
    for folder in (tiny_qwen3, merge(tiny_qwen3, first, tmp_path / "am"), merge(tiny_qwen3, second, tmp_path / "bm")):
        merged = Embedded(folder, inline=True)
        await merged.start()
        expected.append((await read(merged, request("adapt this prompt, please")))[0].text)
        await merged.close()
    assert len(set(expected)) == 3

    engine = Embedded(tiny_qwen3, inline=True)
    await engine.start()
    await engine.load_adapter("a", str(first))
    await engine.load_adapter("b", str(second))
    assert engine.adapters() == ("a", "b")
    for _ in range(2):
        mixed = await together(
            engine, [request("adapt this prompt, please", adapter=name) for name in (None, "a", "b", "a")]
        )
        assert [m[0].text for m in mixed] == [*expected, expected[1]]
    await engine.unload_adapter("a")
    assert (await read(engine, request("adapt this prompt, please", adapter="b")))[0].text == expected[2]
    with pytest.raises(UnknownModel):
        await read(engine, request("p", adapter="a"))
    with pytest.raises(UnknownModel):
        await engine.unload_adapter("a")
    await engine.load_adapter("b", str(first))
    assert (await read(engine, request("adapt this prompt, please", adapter="b")))[0].text == expected[1]
    await engine.close()


async def test_bad_adapters_are_named_and_change_nothing(engine: Embedded, tmp_path: Path) -> None:
    [before] = await read(engine, request("p"))
    good = write_adapter(tmp_path / "good", 1, ("q_proj",))
    cases = {"nothing": "adapter_config.json"}
    write_adapter(tmp_path / "kind", 1, ("q_proj",), peft_type="IA3")
    cases["kind"] = "IA3.*merge it into its base"
    shutil.copytree(good, tmp_path / "cut")
    data = (good / "adapter_model.safetensors").read_bytes()
    (tmp_path / "cut" / "adapter_model.safetensors").write_bytes(data[:-10])
    cases["cut"] = "truncated"
    shutil.copytree(good, tmp_path / "pickled")
    (tmp_path / "pickled" / "adapter_model.safetensors").unlink()
    (tmp_path / "pickled" / "adapter_model.bin").write_bytes(b"x")
    cases["pickled"] = "safetensors"
    for name, message in cases.items():
        with pytest.raises(ModelLoadError, match=message):
            await engine.load_adapter(name, str(tmp_path / name))
    assert engine.adapters() == ()
    assert (await read(engine, request("p")))[0].text == before.text
