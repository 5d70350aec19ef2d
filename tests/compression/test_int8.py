"""W8A8 as its formula says, and SmoothQuant, which changes nothing but how well a model quantises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reason_engine.compression.quantize.int8 import round_to_nearest, smoothing
from reason_engine.compression.run import prepare, run
from reason_engine.errors import SetupError
from reason_engine.training.common.models import load_model
from tests.models import write_model

TEXT = "Numbers are counted from nought, and no two of them are the same. " * 60
QUIET = "report=false"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose norms blow a few channels up, which its matrices take back, as large language models' do."""
    folder = write_model(tmp_path_factory.mktemp("m") / "uneven", scale=1.0)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight")):
            tensor[::16] *= 60
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            tensor[:, ::16] /= 60
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_round_to_nearest_is_within_half_a_step() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    made = round_to_nearest("w", weight)
    assert made["w"].dtype == torch.int8 and made["w"].abs().amax(1).tolist() == [127] * 3 + [0] + [127] * 4
    error = (made["w"].float() * made["w_scale"] - weight).abs()
    assert (error <= made["w_scale"] / 2 + 1e-7).all()


def _logits(folder: Path, tensors: dict[str, Any] | None = None) -> torch.Tensor:
    model, _ = load_model(folder)
    if tensors is not None:
        model.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 45)[None], use_cache=False).logits[0]


def test_smoothing_alone_changes_no_answer(uneven: Path, text: Path) -> None:
    config = prepare("int8", None, [QUIET, "smooth=0.5", f"data={text}"])
    change = smoothing(config, 0.5, uneven, lambda _: None)
    tensors = {name: change(name, tensor) for name, tensor in load_file(uneven / "model.safetensors").items()}
    before = load_file(uneven / "model.safetensors")
    assert not torch.equal(
        tensors["model.layers.1.mlp.down_proj.weight"], before["model.layers.1.mlp.down_proj.weight"]
    )
    torch.testing.assert_close(_logits(uneven, tensors), _logits(uneven), atol=2e-3, rtol=2e-3)


def test_smoothing_saves_what_outliers_cost(uneven: Path, text: Path, tmp_path: Path) -> None:
    """The embedded engine's logits, with activations rounded token by token, against the model in full."""
    from tests.engines.test_embedded_quantised import logits

    errors: list[float] = []
    for name, settings in (("plain", []), ("smooth", ["smooth=0.5", f"data={text}"])):
        run("int8", prepare("int8", None, [QUIET, *settings]), str(uneven), tmp_path / name)
        with torch.inference_mode():
            found = logits(tmp_path / name, list(range(5, 45)))
        errors.append(float((found - _logits(uneven)).norm()))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("too short", "t.txt", "is too short to calibrate on: "),
        ('{"foo": 1}\n', "t.jsonl", "fits no format"),
        ("", "t.jsonl", "holds no rows"),
    ],
)
def test_text_that_is_no_use(uneven: Path, tmp_path: Path, content: str, name: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    config = prepare("int8", None, [QUIET, "smooth=0.5", f"data={tmp_path / name}"])
    with pytest.raises(SetupError, match=message):
        run("int8", config, str(uneven), tmp_path / "o")
    assert not (tmp_path / "o").exists()
