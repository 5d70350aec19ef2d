"""A few new parameters: what is written, what it does, what stays as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.training.supervised.sft import SftConfig
from tests.models import write_model
from tests.training.test_methods import PAIRS, SPOKEN, lines, train

torch = pytest.importorskip("torch")
needs_peft = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('peft')", reason="extra train")
LIBRARY = ["lora", "dora", "ia3", "prompt"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def states(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@needs_peft
@pytest.mark.parametrize("method", LIBRARY)
def test_an_adapter_learns_and_stands_beside_its_checkpoint(base: Path, tmp_path: Path, method: str) -> None:
    import peft

    rate = {"ia3": 0.05, "prompt": 0.1}.get(method, 0.01)
    log = train("sft", base, tmp_path, peft=method, adamw_rate=rate)
    assert log[-1]["loss"] < 0.97 * log[0]["loss"]
    out = tmp_path / "out"
    settings = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    ids = torch.arange(40)[None] % 250
    with torch.no_grad():
        plain, written = states(base)(ids).logits, states(out)(ids).logits
        adapted = peft.PeftModel.from_pretrained(states(base), out / "adapter")(input_ids=ids).logits
    if method == "prompt":
        torch.testing.assert_close(written, plain, rtol=0.1, atol=0.1)  # the base, in bf16
    else:
        assert (written - plain).abs().max() > 0.2
        torch.testing.assert_close(written, adapted, rtol=0.1, atol=0.1)


@pytest.mark.filterwarnings("error")
def test_bottlenecks_begin_as_the_identity_learn_and_are_read_back(base: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.adapters import add_bottlenecks, load_bottlenecks

    ids = torch.arange(40)[None] % 250
    model = states(base)
    with torch.no_grad():
        before = model(ids).logits
        add_bottlenecks(model, 8)
        torch.testing.assert_close(model(ids).logits, before)
    log = train("sft", base, tmp_path, peft={"method": "adapter", "width": 8}, adamw_rate=0.01)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    read = states(base)
    load_bottlenecks(read, tmp_path / "out" / "adapter", 8)
    with torch.no_grad():
        assert (read(ids).logits - before).abs().max() > 0.1
    kept = states(tmp_path / "out").state_dict()
    assert all(kept[name].equal(tensor.bfloat16().float()) for name, tensor in states(base).state_dict().items())


@needs_peft
def test_killed_and_resumed_ends_the_same(base: Path, tmp_path: Path) -> None:
    from reason_engine.training.run import run

    whole = train("sft", base, tmp_path / "whole", peft="lora", tokens=2000)
    data = lines(tmp_path / "rows.jsonl", SPOKEN)
    config = SftConfig.model_validate(
        {
            "out": tmp_path / "out", "model": base, "data": data, "tokens": 2000, "batch": 8, "precision": "fp32",
            "threads": 1, "log_every": 1, "adamw_rate": 2e-3, "max_length": 128, "weight_decay": 0.0,
            "peft": "lora", "save_every": 500,
        }
    )  # fmt: skip

    def tell(row: Any) -> None:
        if row.get("step") == len(whole) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("sft", config, tell=tell)
    size = (tmp_path / "out" / "checkpoint" / "state.pt").stat().st_size
    assert run("sft", config)["metrics"]["loss"] == pytest.approx(whole[-1]["loss"], abs=1e-6)
    assert size < 3.5 * (tmp_path / "out" / "adapter" / "adapter_model.safetensors").stat().st_size + 60_000


@needs_peft
@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt", "adapter"])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_reference_is_the_base_without_the_adapter(base: Path, tmp_path: Path, method: str, kind: str) -> None:
    log = train(method, base, tmp_path, peft=kind, adamw_rate=0.02, tokens=2500)
    first = {"dpo": 0.6931, "kto": 0.5}[method]
    if kind != "prompt":  # whose learned tokens say something from the start
        assert log[0]["loss"] == pytest.approx(first, abs=1e-4)
    assert log[-1]["loss"] < log[0]["loss"]
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


@needs_peft
@pytest.mark.parametrize("kind", [None, "lora", "adapter"])
def test_what_is_worked_out_again_is_the_same(base: Path, tmp_path: Path, kind: str | None) -> None:
    rows = [
        train("sft", base, tmp_path / str(again), peft=kind, tokens=600, checkpointing=again) for again in (True, False)
    ]
    assert [row["loss"] for row in rows[0]] == pytest.approx([row["loss"] for row in rows[1]], abs=1e-4)
    with pytest.raises(ValueError, match="checkpointing: compiled"):
        train("sft", base, tmp_path / "c", compile=True, checkpointing=True)


@needs_peft
@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_other_methods_adapt_too(base: Path, tmp_path: Path, method: str) -> None:
    log = train(method, base, tmp_path, peft={"method": "lora", "rank": 4}, adamw_rate=0.01, tokens=2500)
    assert log[-1]["accuracy"] == 1
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    if method == "reward":
        from safetensors import safe_open

        with safe_open(str(tmp_path / "out" / "model.safetensors"), "pt") as file:
            names = set(file.keys())
        assert "score.weight" in names and not any("lora" in name or "base_layer" in name for name in names)


def test_a_missing_extra_is_one_clear_line(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("reason_engine.training.common.recipe.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"`peft: lora` needs, is not installed; .*reason-engine\[train\]"):
        train("sft", base, tmp_path, peft="lora")
    assert train("sft", base, tmp_path / "own", peft="adapter", tokens=200)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"peft": "lorra"}, "peft"),
        ({"peft": {"method": "lora", "rank": 0}}, "rank"),
        ({"peft": "lora", "compile": True}, "compile"),
        ({"ewc": 3.0}, "ewc and old"),
    ],
)
def test_bad_keys(base: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train("sft", base, tmp_path, **changes)


@needs_peft
def test_targets_that_no_matrix_has(base: Path, tmp_path: Path) -> None:
    lines(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(SetupError, match="peft: "):
        train("sft", base, tmp_path, peft={"method": "lora", "targets": ["nowhere"]})


@needs_peft
async def test_an_adapter_is_served_beside_its_base(base: Path, tmp_path: Path) -> None:
    from reason_engine.engines.embedded.front import Embedded
    from reason_engine.types import Message, Sampling
    from tests.engines.contract import read, request

    train("sft", base, tmp_path, peft="lora", adamw_rate=0.02, tokens=8_000)
    engine = Embedded(base, inline=True)
    await engine.start()
    try:
        await engine.load_adapter("taught", str(tmp_path / "out" / "adapter"))
        prompt, greedy = (engine.render_chat([Message("user", "Say 3")]), Sampling(max_tokens=5, temperature=0.0))
        taught = await read(engine, request(prompt, greedy, adapter="taught"))
        plain = await read(engine, request(prompt, greedy))
    finally:
        await engine.close()
    assert taught[0].text.startswith("yes") and not plain[0].text.startswith("yes")
