"""The embedded engine beyond the contract: batching, sampling, structure, adapters, death, bad files."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded import Embedded
from reason_engine.engines.embedded.links import ProcessLink
from reason_engine.errors import (
    CapabilityMissing,
    EngineDead,
    ModelLoadError,
    RequestError,
    UnknownModel,
)
from reason_engine.runtime.solve import solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import ChoiceRequest, Limits, Problem, ScoreRequest, Structured
from tests.engines.contract import GREEDY, WARM, Sample, read, request, together
from tests.models import write_model

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    made = Embedded(tiny_qwen3, inline=True, max_rows=6)
    await made.start()
    yield made
    await made.close()


async def test_more_samples_than_rows_are_served_in_turn(engine: Embedded, tiny_qwen3: Path) -> None:
    sampling = replace(WARM, max_tokens=20)
    samples = await read(engine, request("turn", sampling, n=17))
    assert [s.tokens for s in samples] == [20] * 17
    wide = Embedded(tiny_qwen3, inline=True)
    await wide.start()
    assert [s.text for s in await read(wide, request("turn", sampling, n=17))] == [s.text for s in samples]
    await wide.close()


async def test_rows_that_end_at_different_steps_leave_the_others_text_alone(
    engine: Embedded, tiny_qwen3: Path
) -> None:
    """A row that leaves makes another one move: its text must be what it is when nothing moves."""
    asked = [
        request(f"{chr(97 + i)}: of its own length", replace(GREEDY, max_tokens=4 + 7 * (i * 5 % 12)))
        for i in range(12)
    ]
    alone = [(await read(engine, one))[0].text for one in asked]
    wide = Embedded(tiny_qwen3, inline=True)
    await wide.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(read(wide, one)) for one in asked]
    await wide.close()
    assert [task.result()[0].text for task in tasks] == alone


async def test_rows_set_back_for_memory_go_on_with_the_same_text(engine: Embedded, tiny_qwen3: Path) -> None:
    sampling = replace(WARM, max_tokens=150)
    expected = await read(engine, request("memory", sampling, n=4))
    cell = 2 * 2 * 2 * 16 * 4
    tight = Embedded(tiny_qwen3, inline=True, cache_bytes=4 * 128 * cell)
    await tight.start()
    samples = await read(tight, request("memory", sampling, n=4))
    await tight.close()
    assert [s.text for s in samples] == [s.text for s in expected]
    assert sum(s.prompt_tokens for s in samples) == sum(s.prompt_tokens for s in expected)


async def test_a_repeated_prompt_is_read_from_the_cache(engine: Embedded) -> None:
    prompt = "a prompt that nobody asked before, long enough for a few blocks"
    [first] = await read(engine, request(prompt))
    [second] = await read(engine, request(prompt))
    assert first.cached_tokens < 8
    assert second.cached_tokens == second.prompt_tokens - 1
    assert second.text == first.text


async def test_long_prompts_are_read_in_pieces_while_others_run(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = write_model(tmp_path, max_position_embeddings=2048)
    made = Embedded(folder, inline=True)
    await made.start()
    long = "long " * 300
    [alone] = await read(made, request(long))
    await made.close()
    made = Embedded(folder, inline=True)
    await made.start()
    both = await together(made, [request("short", replace(WARM, max_tokens=50), n=2), request(long)])
    await made.close()
    assert alone.prompt_tokens == 1500
    assert both[1][0].text == alone.text


async def test_penalties_work_against_repetition(engine: Embedded) -> None:
    def repeats(sample: Sample) -> int:
        return len(sample.ids) - len(set(sample.ids))

    long = replace(GREEDY, max_tokens=60)
    [plain] = await read(engine, request("abc", long))
    for change in ({"presence_penalty": 2.0, "frequency_penalty": 2.0}, {"repetition_penalty": 5.0}):
        [spread] = await read(engine, request("abc", replace(long, **change)))
        assert repeats(spread) < repeats(plain)
    [begun] = await read(engine, request("abc", replace(long, max_tokens=30, frequency_penalty=2.0)))
    [whole] = await read(engine, request("abc", replace(long, frequency_penalty=2.0)))
    assert whole.ids[:30] == begun.ids


async def test_a_neighbours_settings_change_nothing(engine: Embedded) -> None:
    """Mixed temperatures, truncation, penalties, structure and log-probabilities in one batch."""
    settings = [
        GREEDY,
        WARM,
        replace(WARM, top_p=0.5, seed=9),
        replace(WARM, frequency_penalty=1.5),
        replace(GREEDY, logprobs=3),
        replace(WARM, structured=Structured(regex="[a-d]{12}")),
    ]
    alone = [(await read(engine, request(f"p{i}", s)))[0] for i, s in enumerate(settings)]
    mixed = await together(engine, [request(f"p{i}", s) for i, s in enumerate(settings)])
    assert [m[0].text for m in mixed] == [a.text for a in alone]
    assert [len(m[0].logprobs) for m in mixed] == [0, 0, 0, 0, 12, 0]


async def test_the_stop_token_of_the_model_ends_a_sample(engine: Embedded) -> None:
    eos = 258
    forced = replace(GREEDY, ignore_eos=False, logit_bias=((eos, 100.0),))
    [sample] = await read(engine, request("end", forced))
    assert (sample.ids, sample.text, sample.finish, sample.stop_reason) == ((eos,), "", "stop", None)
    [ignored] = await read(engine, request("end", replace(forced, ignore_eos=True)))
    assert (ignored.tokens, ignored.finish, ignored.text) == (12, "length", "")


async def test_choose_reads_probabilities_that_generation_confirms(engine: Embedded) -> None:
    prompt = "choose between"
    options = ("a", "bc", "bd")
    choice = await engine.choose(ChoiceRequest("x", prompt, options))
    expected: list[float] = []
    for option in options:
        regex = replace(GREEDY, structured=Structured(choice=(option,)), logprobs=0)
        [sample] = await read(engine, request(prompt, regex))
        assert sample.text == option
        expected.append(sum(p.logprob for p in sample.logprobs[: len(option)]))
    import math

    total = sum(map(math.exp, expected))
    assert choice.probabilities == pytest.approx([math.exp(e) / total for e in expected], rel=1e-3)
    assert choice.mass == pytest.approx(total, rel=1e-3)
    assert choice.completion_tokens == 0


async def test_many_choices_at_once_are_the_same_as_one_by_one(engine: Embedded) -> None:
    asked = [ChoiceRequest("x", f"can {i} make 24?", ("yes", "no")) for i in range(12)]
    alone = [(await engine.choose(one)).probabilities for one in asked]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(engine.choose(one)) for one in asked]
    for task, expected in zip(tasks, alone, strict=True):
        assert task.result().probabilities == pytest.approx(expected, rel=1e-4)
        assert task.result().cached_tokens > 0


@pytest.mark.parametrize("options", [(), ("a", "")])
async def test_choosing_from_nothing_is_refused(engine: Embedded, options: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        await engine.choose(ChoiceRequest("x", "p", options))
    assert caught.value.param == "options"


@pytest.mark.parametrize(
    "structured",
    [
        Structured(),
        Structured(json_object=True, regex="a"),
        Structured(json_schema="{"),
        Structured(json_schema="[]"),
        Structured(json_schema='{"type": "nonsense"}'),
        Structured(json_schema='{"a":' * 70 + "1" + "}" * 70),
        Structured(json_schema='{"description": "%s"}' % ("x" * 70_000)),
        Structured(json_schema="[" * 5000 + "]" * 5000),
        Structured(regex="("),
        Structured(regex="a" * 70_000),
    ],
    ids=lambda s: repr(s)[:40],
)
async def test_bad_constraints_are_refused_before_anything_runs(
    engine: Embedded, structured: Structured
) -> None:
    before = (await engine.health()).generated_tokens
    with pytest.raises(RequestError) as caught:
        await read(engine, request("p", replace(WARM, structured=structured)))
    assert caught.value.param == "response_format"
    assert (await engine.health()).generated_tokens == before


async def test_json_is_valid_and_a_regex_is_matched(engine: Embedded) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"enum": [1, 20]},
            "kind": {"enum": ["a", "b"]},
            "deep": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["size", "kind", "deep"],
        "additionalProperties": False,
    }  # fmt: skip
    warm = replace(WARM, max_tokens=100, ignore_eos=False)
    shaped = replace(warm, structured=Structured(json_schema=json.dumps(schema)))
    for sample in await read(engine, request("p", shaped, n=4)):
        made = json.loads(sample.text)
        assert made["size"] in (1, 20)
        assert sample.finish == "stop"
    [sample] = await read(
        engine, request("p", replace(warm, structured=Structured(regex="[0-9]{3}-[a-f]+z")))
    )
    import re

    assert re.fullmatch("[0-9]{3}-[a-f]+z", sample.text)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -5}, "top_k"),
        ({"presence_penalty": 3.0}, "presence_penalty"),
        ({"frequency_penalty": float("inf")}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"logprobs": 21}, "top_logprobs"),
        ({"stop": ("",)}, "stop"),
        ({"logit_bias": ((10_000, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias"),
    ],
    ids=str,
)
async def test_bad_sampling_names_the_field(engine: Embedded, change: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        await read(engine, request("p", replace(GREEDY, **change)))
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", ["", (), (1, 9999), (-1,)])
async def test_bad_prompts_are_refused(engine: Embedded, prompt: Any) -> None:
    with pytest.raises(RequestError) as caught:
        await read(engine, request(prompt))
    assert caught.value.param == "prompt"


async def test_the_same_id_twice_is_refused_and_the_first_goes_on(engine: Embedded) -> None:
    asked = request("p", replace(GREEDY, max_tokens=100))
    first = asyncio.create_task(read(engine, asked))
    while (await engine.health()).running == 0:
        await asyncio.sleep(0)
    with pytest.raises(RequestError):
        await read(engine, asked)
    assert (await first)[0].tokens == 100


@pytest.mark.parametrize("draft", ["sam", "ngram"])
async def test_drafting_is_a_missing_capability(engine: Embedded, draft: Any) -> None:
    with pytest.raises(CapabilityMissing):
        await read(engine, request("p", replace(GREEDY, draft=draft)))
    with pytest.raises(CapabilityMissing):
        await engine.score(ScoreRequest("x", ("a",)))


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


async def test_adapters_and_base_mixed_in_one_batch_equal_merged_models(
    tiny_qwen3: Path, tmp_path: Path
) -> None:
    first = write_adapter(tmp_path / "a", 1, ALL)
    second = write_adapter(tmp_path / "b", 2, ("q_proj", "v_proj"), rank=2)
    expected: list[str] = []
    for folder in (
        tiny_qwen3,
        merge(tiny_qwen3, first, tmp_path / "am"),
        merge(tiny_qwen3, second, tmp_path / "bm"),
    ):
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
    cases["kind"] = "plain LoRA"
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


async def test_the_death_of_the_process_ends_open_requests(tiny_qwen3: Path) -> None:
    engine = Embedded(tiny_qwen3)
    await engine.start()
    assert isinstance(engine._link, ProcessLink)
    pid = engine._link.pid
    assert pid is not None

    async def until_dead() -> None:
        async for _ in engine.generate(request("p", replace(WARM, max_tokens=400), n=4)):
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(EngineDead):
        await until_dead()
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    with pytest.raises(EngineDead):
        await engine.choose(ChoiceRequest("x", "p", ("a",)))
    health = await engine.health()
    assert (health.ready, health.live, health.running) == (False, False, 0)
    await engine.close()


async def test_the_process_ends_with_its_parent(tiny_qwen3: Path) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from reason_engine.engines.embedded import Embedded\n"
        "async def main():\n"
        f"    engine = Embedded({str(tiny_qwen3)!r})\n"
        "    await engine.start()\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "    print(engine._link.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await parent.wait()
    descriptor = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    if descriptor is not None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        async with asyncio.timeout(30):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_closing_and_not_starting_refuse_requests(tiny_qwen3: Path) -> None:
    engine = Embedded(tiny_qwen3, inline=True)
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    await engine.start()
    await engine.close()
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    assert not (await engine.health()).ready


def bad_folders(good: Path, root: Path) -> dict[str, str]:
    """Folders that cannot be served, and what the message must name."""
    names = {
        "no-config": "config.json", "no-weights": "safetensors", "pickled": "pytorch_model.bin", "cut": "truncated",
        "noise": "model.safetensors", "empty": "model.safetensors", "shard": "model-2.safetensors",
        "outside": "outside", "no-tokenizer": "tokenizer.json", "profile": "config.json",
    }  # fmt: skip
    for name in names:
        shutil.copytree(good, root / name)
    whole = (good / "model.safetensors").read_bytes()
    (root / "no-config" / "config.json").unlink()
    (root / "no-weights" / "model.safetensors").unlink()
    (root / "pickled" / "model.safetensors").unlink()
    (root / "pickled" / "pytorch_model.bin").write_bytes(pickle.dumps({"x": 1}))
    (root / "cut" / "model.safetensors").write_bytes(whole[:-1000])
    (root / "noise" / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0" + b"{" * 5000)
    (root / "empty" / "model.safetensors").write_bytes(b"")
    for name, target in (("shard", "model-2.safetensors"), ("outside", "../x/model.safetensors")):
        (root / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": target}}))
    (root / "no-tokenizer" / "tokenizer.json").unlink()
    (root / "profile" / "config.json").write_text("[1]")
    return names


async def test_bad_checkpoints_fail_at_once_with_one_line(tiny_qwen3: Path, tmp_path: Path) -> None:
    for name, message in bad_folders(tiny_qwen3, tmp_path).items():
        with pytest.raises(ModelLoadError, match=message) as caught:
            Embedded(tmp_path / name)
        assert "\n" not in str(caught.value)
    for path in (tmp_path / "nowhere", tmp_path / "cut" / "config.json"):
        with pytest.raises(ModelLoadError, match=str(path)):
            Embedded(path)


async def test_weights_that_do_not_fit_the_config_fail_the_start(tiny_qwen3: Path, tmp_path: Path) -> None:
    for name, change, message in (
        ("wide", {"num_hidden_layers": 3}, "layers.2"),
        ("odd", {"vocab_size": 7}, "embed"),
    ):
        folder = tmp_path / name
        shutil.copytree(tiny_qwen3, folder)
        config = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(config))
        engine = Embedded(folder, inline=name == "odd")
        with pytest.raises(ModelLoadError, match=message):
            await engine.start()
        await engine.close()


async def test_usage_under_a_budget_is_the_engines_own_count(tiny_qwen3: Path) -> None:
    """Sixty-four paths share 500 tokens: what is reported is what the engine generated, cut paths included."""
    made = Embedded(tiny_qwen3, inline=True)
    await made.start()
    before = (await made.health()).generated_tokens
    strategy = SelfConsistency(n=64)
    outcome = await solve(strategy, Problem("How many?"), made, limits=Limits(tokens=500))
    after = (await made.health()).generated_tokens
    await made.close()
    assert outcome.usage.completion == after - before == 500
    assert outcome.stopped == "budget-tokens"
