"""Prompt-tuned and bottleneck adapters of the embedded engine against the forward pass they were trained with."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import ContextLengthExceeded, ModelLoadError
from reason_engine.types import ChoiceRequest, Sampling
from tests.engines.adapter_files import greedy, plain_forward, write, write_bottlenecks, write_prompt
from tests.engines.contract import WARM, read, request, together
from tests.engines.test_embedded_adapters import write_adapter

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMPT, ANSWER = "adapt this prompt, please: ", Sampling(max_tokens=12, temperature=0.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("adapters")
    return {
        "learned": write_prompt(home / "learned", 1),
        "longer": write_prompt(home / "longer", 2, length=9),
        "narrow": write_bottlenecks(home / "narrow", 3),
    }


async def test_all_kinds_and_the_base_in_one_batch_equal_the_training_forward(
    tiny_qwen3: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    engine = Embedded(tiny_qwen3, inline=True)
    await engine.start()
    ids = engine.tokenize(PROMPT)
    names = [None, *folders]
    expected = [tuple(greedy(plain_forward(tiny_qwen3, folders.get(name or "")), ids, 12)) for name in names]
    assert len(set(expected)) == len(names)
    for name, folder in folders.items():
        await engine.load_adapter(name, str(folder))
    await engine.load_adapter("lora", str(write_adapter(tmp_path / "lora", 1, ("q_proj", "down_proj"))))
    alone = (await read(engine, request(PROMPT, ANSWER, adapter="lora")))[0].ids
    for turn in range(2):
        order = list(zip([*names, "lora"], [*expected, alone], strict=True))[:: 1 - 2 * turn]
        mixed = await together(engine, [request(PROMPT, ANSWER, adapter=name) for name, _ in order])
        assert [one[0].ids for one in mixed] == [answer for _, answer in order]
        assert {one[0].prompt_tokens for one in mixed} == {len(ids)}, "learned tokens are not the client's"
        assert all(one[0].cached_tokens < len(ids) for one in mixed)
        assert not turn or all(one[0].cached_tokens > 0 for one in mixed)
    await engine.unload_adapter("learned")
    await engine.load_adapter("narrow", str(folders["longer"]))
    again = await together(engine, [request(PROMPT, ANSWER, adapter=name) for name in ("narrow", "longer")])
    assert [one[0].ids for one in again] == [expected[2]] * 2, "a name's new version finds no old prefix"
    await engine.close()


@pytest.mark.parametrize("name", ["learned", "narrow"])
async def test_choices_penalties_and_continuations_see_the_adapter(
    engine: Embedded, folders: dict[str, Path], tiny_qwen3: Path, name: str
) -> None:
    await engine.load_adapter(name, str(folders[name]))
    forward, ids = plain_forward(tiny_qwen3, folders[name]), engine.tokenize(PROMPT)
    options = ("yes", "no", "z")
    made = await engine.choose(ChoiceRequest("c", PROMPT, options, name))
    logps = [
        sum(float(forward([*ids, *tokens[:at]])[-1].log_softmax(-1)[token]) for at, token in enumerate(tokens))
        for tokens in map(engine.tokenize, options)
    ]
    shares = [math.exp(one) for one in logps]
    assert made.probabilities == pytest.approx([share / sum(shares) for share in shares], abs=1e-3)
    assert made.prompt_tokens == len(ids)
    whole = greedy(forward, ids, 12)
    [first] = await read(engine, request(tuple(ids), Sampling(max_tokens=5, temperature=0.0), adapter=name))
    [rest] = await read(engine, request((*ids, *first.ids), Sampling(max_tokens=7, temperature=0.0), adapter=name))
    assert [*first.ids, *rest.ids] == whole
    wary = Sampling(max_tokens=12, temperature=0.0, presence_penalty=2.0, repetition_penalty=1.5)
    [other] = await read(engine, request(PROMPT, wary, adapter=name))
    assert len(set(other.ids)) > len(set(whole))
    await engine.unload_adapter(name)


async def test_rows_that_are_set_back_keep_their_learned_tokens(
    engine: Embedded, tiny_qwen3: Path, folders: dict[str, Path]
) -> None:
    """A store for four short rows: as they grow, some wait and begin anew from their own tokens."""
    sampling = replace(WARM, max_tokens=150)
    await engine.load_adapter("longer", str(folders["longer"]))
    expected = await read(engine, request("memory", sampling, n=4, adapter="longer"))
    await engine.unload_adapter("longer")
    tight = Embedded(tiny_qwen3, inline=True, cache_bytes=4 * 128 * 2 * 2 * 2 * 16 * 4)
    await tight.start()
    await tight.load_adapter("longer", str(folders["longer"]))
    samples = await read(tight, request("memory", sampling, n=4, adapter="longer"))
    await tight.close()
    assert [one.ids for one in samples] == [one.ids for one in expected]


async def test_learned_tokens_take_room_in_the_context(tiny_qwen3: Path, folders: dict[str, Path]) -> None:
    engine = Embedded(tiny_qwen3, inline=True, context=32)
    await engine.start()
    await engine.load_adapter("longer", str(folders["longer"]))
    ids = tuple(itertools.islice(itertools.cycle(range(60, 90)), 23))
    with pytest.raises(ContextLengthExceeded, match="32"):
        await read(engine, request(ids, adapter="longer"))
    with pytest.raises(ContextLengthExceeded, match="32"):
        await engine.choose(ChoiceRequest("c", "x" * 22, ("yes",), "longer"))
    [fits] = await read(engine, request(ids[:20], Sampling(max_tokens=9, temperature=0.0), adapter="longer"))
    assert fits.finish == "length" and len(fits.ids) == 3
    assert (await read(engine, request(ids)))[0].finish
    await engine.close()


async def test_what_does_not_fit_is_named_and_changes_nothing(engine: Embedded, tmp_path: Path) -> None:
    import torch

    [before] = await read(engine, request("p"))
    wide = {"prompt_embeddings": torch.randn(4, 128)}
    cases = {
        write(tmp_path / "hidden", wide, {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}): r"\(4, 128\)",
        write_prompt(tmp_path / "count", 1, num_virtual_tokens=7): "prompt_embeddings",
        write_prompt(tmp_path / "none", 1, num_virtual_tokens=0): "num_virtual_tokens",
        write_prompt(tmp_path / "unsaid", 1, num_virtual_tokens=None): "adapter_config",
        write_prompt(tmp_path / "prefix", 1, peft_type="PREFIX_TUNING"): "PREFIX_TUNING.*LORA",
        write_bottlenecks(tmp_path / "as-lora", 1, peft_type="LORA", r=4): "cannot be applied.*layers.0",
        write_bottlenecks(tmp_path / "dora", 1, peft_type="LORA", r=4, use_dora=True): "DoRA.*merge",
    }
    deeper = write_bottlenecks(tmp_path / "deeper", 1)
    from safetensors.torch import load_file

    tensors = load_file(str(deeper / "adapter_model.safetensors"))
    tensors["layers.2.mlp.up.bias"] = torch.zeros(64)
    cases[write(deeper, tensors, {"peft_type": "BOTTLENECK"})] = "cannot be applied.*layers.2"
    fewer = {name: t for name, t in tensors.items() if not name.startswith(("layers.1", "layers.2"))}
    cases[write(tmp_path / "fewer", fewer, {"peft_type": "BOTTLENECK"})] = "has no tensor layers.1"
    for folder, said in cases.items():
        with pytest.raises(ModelLoadError, match=said):
            await engine.load_adapter("bad", str(folder))
    (deeper / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(ModelLoadError, match="not a JSON object"):
        await engine.load_adapter("bad", str(deeper))
    assert engine.adapters() == ()
    assert (await read(engine, request("p")))[0].text == before.text
