"""Training on a tiny model: it learns, goes on after a kill as if nothing had been, and leaves frozen weights alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reason_engine.data import Example
from reason_engine.data.mixture import write_examples
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.run import run
from reason_engine.training.supervised.sft import SftConfig

TINY = {"width": 64, "layers": 1, "intermediate": 64, "heads": 2, "kv_heads": 1, "head_dim": 32, "context": 256}


def config(out: Path, **changes: Any) -> SftConfig:
    return SftConfig.model_validate(
        {
            "out": out,
            "tokens": 12_000,
            "batch": 24,
            "micro_tokens": 512,
            "precision": "fp32",
            "threads": 1,
            "save_every": 2_000,
            "log_every": 1,
            "architecture": {**TINY, "vocabulary": 400, "tokenizer_examples": 300},
            "mixture": [{"family": "value", "share": 3}, {"family": "arithmetic", "share": 1}],
            **changes,
        }
    )


def losses(out: Path) -> list[float]:
    return [json.loads(row)["loss"] for row in (out / "log.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sft") / "whole"
    run("sft", config(out))
    return out


class Killed(Exception):
    pass


def kill_at(step: int) -> Any:
    def tell(row: Mapping[str, Any]) -> None:
        if row.get("step") == step:
            raise Killed

    return tell


def test_the_loss_falls_and_the_folder_is_whole(trained: Path) -> None:
    seen = losses(trained)
    assert sum(seen[-3:]) < 0.7 * sum(seen[:3])
    assert not (trained / "checkpoint").exists()
    manifest = json.loads((trained / "manifest.json").read_text())
    assert manifest["metrics"]["tokens"] >= 12_000
    assert manifest["packages"]["torch"] and len(manifest["data"]) == 16
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert model.config.model_type == "qwen3"
    assert str(model.dtype) == "torch.bfloat16"
    assert tokenizer.eos_token_id == model.config.eos_token_id


def test_tokenizer_has_single_digits_and_marks(trained: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained)
    text = "Can 12 345 make 24?\n\nÄ € 日本 \t ok"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    pieces = [tokenizer.decode([one]) for one in tokenizer.encode("12 345\n\n(4)", add_special_tokens=False)]
    assert pieces == ["1", "2", " 3", "4", "5", "\n", "\n", "(", "4", ")"]
    turns = Example("What is 1 + 1?", "Answer: 2", history=(("Hello", "Hi"),)).messages()
    masked = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    kept = [one for one, mark in zip(masked["input_ids"], masked["assistant_masks"], strict=True) if mark]
    assert tokenizer.decode(kept) == "Hi<|im_end|>Answer: 2<|im_end|>"


def test_killed_and_resumed_ends_the_same(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    with pytest.raises(Killed):
        run("sft", config(out), tell=kill_at(14))
    assert (out / "checkpoint" / "state.pt").is_file()
    run("sft", config(out))
    whole, cut = losses(trained), losses(out)
    assert len(cut) == len(whole)  # no step stands there twice
    assert cut[-1] == pytest.approx(whole[-1], abs=1e-6)
    assert weights(out).keys() == weights(trained).keys()


def test_resume_refuses_another_config_and_fresh_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "cut"
    with pytest.raises(Killed):
        run("sft", config(out), tell=kill_at(8))
    with pytest.raises(SetupError, match="--fresh"):
        run("sft", config(out, seed=5))
    run("sft", config(out, seed=5, tokens=1000), fresh=True)
    assert len(losses(out)) < 8


def test_going_on_from_a_checkpoint_with_frozen_weights(trained: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    write_examples(data, [Example(f"Say {n}", f"Answer: {n}") for n in range(20)])
    out = tmp_path / "more"
    changes = {"architecture": None, "model": trained, "mixture": [], "data": data, "tokens": 4000}
    run("sft", config(out, **changes, freeze=["mlp", "embed"]))
    assert losses(out)[-1] < losses(out)[0]
    before, after = weights(trained), weights(out)
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved
    assert not any("mlp" in name or "embed" in name for name in moved)


@pytest.mark.parametrize("pattern, said", [("nothing-like-this", "no parameter matches"), (".", "left to train")])
def test_freeze_refuses(tmp_path: Path, pattern: str, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        run("sft", config(tmp_path / "o", freeze=[pattern]))


def test_bad_inputs(tmp_path: Path) -> None:
    from_checkpoint = {"architecture": None, "model": tmp_path / "none"}
    with pytest.raises(ModelLoadError, match="no checkpoint folder"):
        run("sft", config(tmp_path / "o", **from_checkpoint))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(SetupError, match="holds no rows"):
        run("sft", config(tmp_path / "o", mixture=[], data=empty))
    with pytest.raises(SetupError, match="max_length"):
        run("sft", config(tmp_path / "o", max_length=16))


def test_skipped_ranges_and_prompts_teach_nothing(trained: Path) -> None:
    from transformers import AutoTokenizer

    from reason_engine.training.common.encode import Encoder, micro_batches

    tokenizer = AutoTokenizer.from_pretrained(trained)
    answer = "1 + 1 = 3\nWrong: 1 + 1 = 2\nAnswer: 2"
    example = Example("What is 1 + 1?", answer, weight=2.0, skip=((0, 10),), history=(("Hello", "Hi"),))
    (one,) = Encoder(tokenizer, 256).encode([example])
    taught = tokenizer.decode([i for i, weight in zip(one.ids, one.weights, strict=True) if weight])
    assert taught == f"{answer[10:]}<|im_end|>"
    assert set(one.weights) == {0.0, 2.0}
    batch = Encoder(tokenizer, 256).encode([Example("q" * n, "a") for n in range(1, 60)])
    groups = micro_batches(batch, 400)
    assert sorted(len(one.ids) for group in groups for one in group) == sorted(len(one.ids) for one in batch)
    sizes = [len(group) * max(len(one.ids) for one in group) for group in groups]
    assert len(groups) > 3 and max(sizes) <= 400 and min(sizes) >= 150
