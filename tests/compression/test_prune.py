"""`reason compress prune`: what takes nothing away changes nothing; what is written loads; recovery keeps zeros."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reason_engine.compression.law import read_points
from reason_engine.compression.run import prepare, run
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.weights import load_weights
from reason_engine.progress import reporter, staged
from tests.models import write_model

MIX = "mixture=[{family: value, share: 1}]"
SETTINGS = ("report=false", MIX, "rows=24", "length=96", "threads=1", "multiple=8")


def compress(model: Path, out: Path, *settings: str) -> dict[str, Any]:
    run("prune", prepare("prune", None, (*SETTINGS, *settings)), str(model), out)
    return json.loads((out / "manifest.json").read_text())["figures"]


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return loaded(folder)(torch.arange(40, 70)[None]).logits


def rewritten(model: Path, change: Any) -> None:
    """The checkpoint after `change(layers)`."""
    one = loaded(model)
    with torch.no_grad():
        change(one.model.layers)
    one.save_pretrained(model)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "mistral", "qwen2"])
def test_channels_and_heads_that_do_nothing_are_the_ones_that_go(tmp_path: Path, kind: str) -> None:
    model = write_model(tmp_path / "m", kind, intermediate_size=64)

    def kill(layers: Any) -> None:
        for layer in layers:
            layer.mlp.down_proj.weight[:, 1::2] = 0  # every other channel
            if kind != "qwen2":
                layer.self_attn.o_proj.weight[:, :32] = 0  # the first of two groups of heads

    rewritten(model, kill)
    settings = ("rate=0.25",) if kind == "qwen2" else ("rate=0.5", "kv_heads=1")
    compress(model, tmp_path / "o", *settings)
    said = json.loads((tmp_path / "o" / "config.json").read_text())
    assert said["intermediate_size"] == 32
    assert said["num_key_value_heads"] == (2 if kind == "qwen2" else 1)
    assert torch.allclose(logits(tmp_path / "o"), logits(model), atol=2e-2, rtol=1e-2)
    shape = read_shape(tmp_path / "o")
    assert (shape.heads, shape.head_dim) == ((4, 16) if kind == "qwen2" else (2, 16))
    load_weights(tmp_path / "o", shape, torch.float32, torch.device("cpu"))


def test_a_layer_that_does_nothing_is_the_one_that_goes(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", num_hidden_layers=3)

    def kill(layers: Any) -> None:
        layers[1].self_attn.o_proj.weight.zero_()
        layers[1].mlp.down_proj.weight.zero_()

    rewritten(model, kill)
    figures = compress(model, tmp_path / "o", "by=depth", "rate=0.3")
    assert figures["layers"] == [0, 2] and figures["influence"][1] == pytest.approx(0, abs=1e-5)
    assert torch.equal(logits(tmp_path / "o"), logits(model))
    assert read_shape(tmp_path / "o").layers == 2


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (("by=magnitude", "rate=0.25"), 0.25),
        (("by=wanda", "rate=0.25"), 0.25),
        (("by=wanda", "pattern=2:4"), 0.5),
        (("by=sparsegpt", "rate=0.25"), 0.25),
        (("by=sparsegpt", "pattern=2:4"), 0.5),
    ],
)
def test_single_weights_are_stored_as_zeros(tmp_path: Path, settings: tuple[str, ...], share: float) -> None:
    model = write_model(tmp_path / "m", dtype="bfloat16")
    compress(model, tmp_path / "o", *settings)
    before, after = (loaded(folder).state_dict() for folder in (model, tmp_path / "o"))
    assert (tmp_path / "o" / "model.safetensors").stat().st_size == (model / "model.safetensors").stat().st_size
    for name, tensor in after.items():
        if "_proj" in name:
            assert (tensor == 0).float().mean().item() == pytest.approx(share, abs=0.01), name
            if share == 0.5:
                assert ((tensor.reshape(-1, 4) == 0).sum(1) >= 2).all()
        else:
            assert torch.equal(tensor, before[name])


def test_recovery_keeps_zeros_and_adds_points(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m", scale=1.0)
    recover = ("recover.tokens=4000", "recover.checkpoints=2", "recover.held=20", "recover.batch=8")
    figures = compress(model, tmp_path / "o", "by=wanda", "rate=0.5", "length=256", *recover)
    for name, tensor in loaded(tmp_path / "o").state_dict().items():
        if "_proj" in name:
            assert (tensor == 0).float().mean().item() == pytest.approx(0.5, abs=0.01), name
    points = read_points(tmp_path / "points.jsonl")
    assert [(p.D, p.L) for p in points] == [tuple(one) for one in figures["recovered"]["losses"]]
    total = sum(p.numel() for p in loaded(model).parameters())
    assert len(points) == 2 and total == points[0].N0 and points[0].rho == pytest.approx(figures["pruned"])
    assert points[0].by == "wanda" and 2000 <= points[0].D < points[1].D
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "o", "points.jsonl"]
    assert not any(path.name.startswith(".") for path in (tmp_path / "o").iterdir())


def test_a_training_is_a_stage_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    told = staged(reporter(out := Terminal(), False), "recover", 200)
    for row in ({"note": "one"}, {"tokens": 100, "loss": 2.5, "step": 1}, {"tokens": 230, "loss": 2.0, "step": 2}):
        told(row)
    assert "one\n" in out.getvalue() and "100/200  recover" in out.getvalue()
    assert out.getvalue().endswith("200/200  recover\x1b[K\n")


def test_recovery_learns_a_file_without_what_is_held_out(tmp_path: Path) -> None:
    from reason_engine.compression.calibration import read_calibration
    from reason_engine.compression.prune.recover import split_rows
    from reason_engine.training.common.models import load_tokenizer

    model, file = write_model(tmp_path / "m"), tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"row {n} " + "x" * 40}) + "\n" for n in range(100)))
    config = prepare("prune", None, [f"data={file}", "rows=30", "length=64"])
    calibration, tokenizer = read_calibration(config, model), load_tokenizer(model)
    held = split_rows(config, calibration, tokenizer, 50, tmp_path / "learned.jsonl")
    learned = {json.loads(line)["text"] for line in (tmp_path / "learned.jsonl").read_text().splitlines()}
    unseen = {tokenizer.decode(ids) for ids in calibration.held_out}
    assert len(held) == 8 and len(learned) == 100 - len(held) - len(unseen)
    assert not learned & unseen and not learned & {row.text for row in held}


BAD = [
    (("rate=0",), "rate: Input should be greater than 0"),
    (("rate=1",), "rate: Input should be less than 1"),
    (("by=wnda",), "by: Input should be 'width'"),
    (("by=width", "pattern=2:4"), "pattern: is of single weights"),
    (("by=wanda", "pattern=2:4", "rate=0.3"), "pattern: 2:4 is a rate of 0.5"),
    (("rate=0.95",), "rate: 0.95 of a layer cannot be pruned"),
    (("kv_heads=9",), "kv_heads: must be 1 to 2"),
    (("by=depth", "rate=0.9"), "leaves none"),
    (("recover.tokens=0",), "recover.tokens: "),
    (("recover.points=3", "recover.tokn=1"), "recover."),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("prune") / "m")


@pytest.mark.parametrize(("settings", "said"), BAD)
def test_wrong_input_is_one_line(tiny: Path, tmp_path: Path, reason: Any, settings: tuple[str, ...], said: str) -> None:
    words = [word for setting in (MIX, *settings) for word in ("--set", setting)]
    ran = reason("compress", "prune", str(tiny), str(tmp_path / "o"), *words)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_activations_need_rows_and_zeros_are_announced(tiny: Path, tmp_path: Path, reason: Any) -> None:
    ran = reason("compress", "prune", str(tiny), str(tmp_path / "o"), "--set", "by=wanda")
    assert ran.code == 2 and "by wanda looks at activations: name data or a mixture" in ran.err
    settings = ("--set", "by=magnitude", "--set", "report=false")
    ran = reason("compress", "prune", str(tiny), str(tmp_path / "o"), *settings)
    assert ran.code == 0, ran.err
    assert "neither smaller nor faster" in ran.out and "as a dense model: no gain in speed" in ran.out


def test_an_architecture_that_is_not_served_is_refused(tiny: Path, tmp_path: Path, reason: Any) -> None:
    import shutil

    shutil.copytree(tiny, tmp_path / "m")
    said = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**said, "architectures": ["PhiForCausalLM"]}))
    ran = reason("compress", "prune", str(tmp_path / "m"), str(tmp_path / "o"), "--set", "by=magnitude")
    assert ran.code == 2 and "PhiForCausalLM is not among those" in ran.err
