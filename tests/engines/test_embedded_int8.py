"""Products of 8-bit codes: whole numbers, alone as in a batch, on every kernel; models that are turned into codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reason_engine.engines.embedded.model import loading
from reason_engine.engines.embedded.model.adapters import AdapterSlots
from reason_engine.engines.embedded.model.codes import Codes
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.int8 import LEVELS, Int8, Int8Rows, Kernel, find_kernel, quantise
from reason_engine.engines.embedded.model.loading import load_decoder, make_decoder
from reason_engine.engines.embedded.model.packed import Cast, Packed
from reason_engine.engines.embedded.model.quantised import Int4, pack
from reason_engine.engines.embedded.model.sensitivity import build_measured
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.stored import FolderTensors
from reason_engine.engines.embedded.model.weights import Layout, load_weights
from reason_engine.engines.embedded.prefill import advance, new_segment
from reason_engine.errors import ModelLoadError
from tests.engines.adapter_files import write_bottlenecks, write_prompt
from tests.engines.test_embedded_adapters import write_adapter
from tests.models import write_model
from tests.quantised import write_int4

CPU = torch.device("cpu")
WIDE: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "head_dim": 32}


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def saturating(code_NI: Any, zero: int, packed: Any, scale_O: Any, zero_O: Any) -> torch.Tensor:
    """As oneDNN's product without VNNI: pairs of bytes are added in 16 bits."""
    weight_OI = packed.to_dense() if packed.is_mkldnn else packed
    pairs = code_NI.int()[:, None] * weight_OI.int().reshape(weight_OI.shape[0], -1)[None]
    short = pairs.unflatten(2, (-1, 2)).sum(-1).clamp(-32768, 32767)
    return (short.sum(-1) - zero * weight_OI.int().sum(1)).float() * scale_O


class PlainKernel(Kernel):
    """Weights are left as they are, so that a product of our own can read them."""

    def pack(self, code_OI: torch.Tensor) -> torch.Tensor:
        return code_OI


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny", "qwen2", tie_word_embeddings=True, **WIDE)


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "untied", **WIDE)


def logits(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    ((_, hidden_NH),) = advance(decoder, [new_segment(decoder, ids, keep=len(ids))], 1000, None)
    return decoder.logits(hidden_NH)


@pytest.mark.parametrize("levels", [LEVELS, LEVELS // 2])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 70])
def test_products_are_whole_numbers_scaled(levels: int, rows: int) -> None:
    kernel = Kernel(levels)
    if not kernel.is_exact():
        pytest.skip("this machine's product saturates")
    x, (code, scale) = random(rows, 192), quantise(random(80, 192, seed=1))
    x[-1] *= 1000
    most = x.abs().amax(1, keepdim=True)
    steps = torch.floor(x.double() * levels / most + 0.5)
    exact = (steps @ code.double().t()) * (most / levels).double() * scale.double()
    found = Int8(code, scale, kernel).product(x)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))
    plain = Int8(code, scale).product(x) if levels == LEVELS else found
    torch.testing.assert_close(plain, found, rtol=1e-5, atol=1e-3)


def test_a_row_is_multiplied_alike_whatever_stands_beside_it() -> None:
    kernel = find_kernel()
    for made in (Int8(*quantise(random(96, 576, seed=3)), kernel), Int8(*quantise(random(96, 576, seed=3)))):
        x = random(33, 576, seed=4)
        whole = made.product(x)
        for rows in (1, 2, 4, 16):
            assert torch.equal(made.product(x[:rows]), whole[:rows])


def test_zeros_and_broken_numbers() -> None:
    made = Int8(*quantise(random(32, 64)), find_kernel())
    assert torch.equal(made.product(torch.zeros(2, 64)), torch.zeros(2, 32))
    broken = random(2, 64)
    broken[0, 3] = float("nan")
    found = made.product(broken)
    assert found[0].isnan().all() and found[1].isfinite().all()
    assert quantise(torch.zeros(2, 4))[0].abs().max() == 0


def test_a_product_that_saturates_is_found_out_and_replaced_by_seven_bits() -> None:
    assert not PlainKernel(LEVELS, saturating).is_exact()
    assert PlainKernel(LEVELS // 2, saturating).is_exact()


@pytest.mark.parametrize("kind", ["wrong", "raises", "missing"])
def test_a_kernel_that_fails_its_check_is_not_used(kind: str) -> None:
    def multiply(code_NI: Any, zero: int, packed: Any, scale_O: Any, zero_O: Any) -> torch.Tensor:
        if kind == "raises":
            raise RuntimeError("could not create a primitive")
        if kind == "missing":
            return torch.ops.onednn.no_such_product(code_NI)
        return torch.zeros(code_NI.shape[0], scale_O.shape[0])

    assert find_kernel(multiply) is None


def test_a_kernel_that_is_exact_but_slow_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "is_fast", lambda self: False)
    assert find_kernel() is None


@torch.inference_mode()
def test_without_a_kernel_int8_goes_the_slower_way_and_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = logits(load_decoder(model, weights="int8"), list(range(20)))
    monkeypatch.setattr(loading, "find_kernel", lambda: None)
    decoder = load_decoder(model, weights="int8")
    assert any("slower" in note for note in decoder.notes)
    torch.testing.assert_close(logits(decoder, list(range(20))), usual, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("which", ["model", "untied"])
def test_a_model_in_codes_says_nearly_what_it_said(which: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(which)
    small, ids = load_decoder(folder, weights="int8"), list(range(40))
    whole = logits(load_decoder(folder), ids)
    assert torch.nn.functional.cosine_similarity(logits(small, ids), whole).mean() > 0.995
    layer = small.weights.layers[0]
    assert all(isinstance(one, Int8) for one in (layer.qkv, layer.out, layer.gate_up, layer.down, small.weights.head))
    assert isinstance(small.weights.embedding, Int8Rows) and small.precision == "int8"


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_the_same_alone_and_in_a_batch(untied: Path, dtype: str) -> None:
    """All but attention, which belongs to whoever keeps the cells."""
    decoder = load_decoder(untied, weights="int8", dtype=dtype)
    tokens, places = torch.arange(16), torch.arange(3, 19)

    def step(count: int) -> torch.Tensor:
        kept = decoder.forward(tokens[:count], places[:count], lambda i, q, kv: q.flatten(1), 32)
        return decoder.logits(kept)

    whole = step(16)
    for count in (1, 2, 5):
        assert torch.equal(step(count), whole[:count])


class Counting(Mapping[str, torch.Tensor]):
    """Reads when asked, and counts."""

    def __init__(self, inner: Mapping[str, torch.Tensor]) -> None:
        self.inner, self.read = inner, dict.fromkeys(inner, 0)
        self.alive: list[Any] = []

    def __getitem__(self, name: str) -> torch.Tensor:
        found = self.inner[name].clone()
        self.read[name] += 1
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


@torch.inference_mode()
@pytest.mark.parametrize("weights", ["int8", "full"])
def test_tensors_are_read_when_they_are_asked_for(untied: Path, weights: str) -> None:
    tensors = Counting(FolderTensors(untied))
    assert "model.layers.0.self_attn.q_proj.weight" in tensors
    made = make_decoder(read_shape(untied), tensors, "somewhere", weights=weights)
    assert set(tensors.read.values()) <= {1, 2} and sum(tensors.read.values()) <= len(tensors) + 4
    usual = load_decoder(untied, weights=weights)
    assert torch.equal(logits(made, [1, 2, 3]), logits(usual, [1, 2, 3]))


def test_a_missing_tensor_is_named_with_the_source(untied: Path) -> None:
    tensors = {name: tensor for name, tensor in FolderTensors(untied).items() if "layers.1.mlp.up" not in name}
    for weights in ("int8", "full"):
        with pytest.raises(ModelLoadError, match=r"^somewhere: .*layers\.1\.mlp\.up_proj"):
            make_decoder(read_shape(untied), tensors, "somewhere", weights=weights)


@torch.inference_mode()
def test_other_weights_become_codes_too(untied: Path, tmp_path: Path) -> None:
    decoder = load_decoder(untied, weights="int8")
    before = logits(decoder, [5, 6, 7])
    tensors = {name: tensor * 1.5 for name, tensor in FolderTensors(untied).items()}
    decoder.replace_weights(tensors)
    assert isinstance(decoder.weights.layers[1].down, Int8)
    assert not torch.allclose(before, logits(decoder, [5, 6, 7]))


def spiked(folder: Path, out: Path, *, layers: int) -> Path:
    """The model with a few outputs of `up_proj` two thousand times as large, and as much less of them in `down_proj`:
    one step for all inputs of a row is then too coarse for the others."""
    out.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    for layer in range(layers):
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"][:3] *= 2000
        tensors[f"model.layers.{layer}.mlp.down_proj.weight"][:, :3] /= 2000
    save_file(tensors, out / "model.safetensors")
    return out


@torch.inference_mode()
def test_a_few_large_activations_do_not_cost_the_others_their_precision(untied: Path, tmp_path: Path) -> None:
    folder, ids = spiked(untied, tmp_path / "spiked", layers=2), list(range(30))
    small, whole = load_decoder(folder, weights="int8"), load_decoder(folder)
    assert small.precision == "int8"
    assert torch.nn.functional.cosine_similarity(logits(small, ids), logits(whole, ids)).mean() > 0.995


@torch.inference_mode()
def test_a_matrix_that_loses_by_codes_stays_as_it_is(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, layout = read_shape(untied), Layout(int8=True, kernel=find_kernel())
    _, measured = build_measured(FolderTensors(untied), shape, torch.float32, CPU, "somewhere", layout)
    layers = sorted((one.error, one.name) for one in measured if one.name != "lm_head")
    assert all(one.codes and 0 < one.error < 0.03 for one in measured)
    (limit, _), (error, name) = layers[-2:]
    between = (limit + error) / 2
    monkeypatch.setattr(loading, "build_measured", lambda *given: build_measured(*given, limit=between))
    decoder = load_decoder(untied, weights="int8")
    kept = [one for layer in decoder.weights.layers for one in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    assert sum(not isinstance(one, Int8) for one in kept) == 1
    assert decoder.precision.startswith("int8, ") and decoder.precision.endswith(" of 9 matrices float32")
    assert any(note.startswith(f"{name} stays in float32") for note in decoder.notes)
    ids = list(range(30))
    likeness = torch.nn.functional.cosine_similarity(logits(decoder, ids), logits(load_decoder(untied), ids))
    assert likeness.mean() > 0.995


@torch.inference_mode()
def test_a_model_that_cannot_be_in_codes(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "build_measured", lambda *given: build_measured(*given, limit=1e-4))
    with pytest.raises(ModelLoadError, match=r"weights int8: 9 of 9 matrices lose more than .* use weights full"):
        load_decoder(untied, weights="int8")
    monkeypatch.setattr(loading, "LARGE", 0)
    decoder = load_decoder(untied, weights="auto")
    assert decoder.precision == "float32" and isinstance(decoder.weights.layers[0].down, torch.Tensor)
    assert any("stay as they are stored" in note for note in decoder.notes)


@torch.inference_mode()
def test_auto_takes_codes_for_large_models_only_and_where_no_dtype_is_named(
    untied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_decoder(untied, weights="auto").precision == "float32"
    monkeypatch.setattr(loading, "LARGE", 0)
    assert load_decoder(untied, weights="auto").precision == "int8"
    assert load_decoder(untied, weights="auto", dtype="float32").precision == "float32"
    assert load_decoder(untied).precision == "float32"
    monkeypatch.setattr(loading, "find_kernel", lambda: None)
    decoder = load_decoder(untied, weights="auto")
    assert decoder.precision == "float32" and "failed its check" in decoder.notes[0]


def test_an_unknown_way_to_keep_weights_is_refused(untied: Path) -> None:
    with pytest.raises(ModelLoadError, match="weights 'int3' is not among auto, int8, full"):
        load_decoder(untied, weights="int3")


@torch.inference_mode()
def test_four_bit_codes_have_a_copy_of_eight_bits_for_many_rows(untied: Path, tmp_path: Path) -> None:
    folder = write_int4(untied, tmp_path / "q", "awq")
    few, many = load_decoder(folder), load_decoder(folder, weights="int8")
    ids = list(range(30))
    assert isinstance(many.weights.layers[0].down, Int4)
    assert torch.nn.functional.cosine_similarity(logits(few, ids), logits(many, ids)).mean() > 0.99
    assert many.precision == "int4 and int8 and float32" and few.precision == "int4 and float32"
    x = random(6, 128)
    codes = Codes(torch.randint(0, 16, (32, 128), dtype=torch.uint8), torch.rand(32, 4) + 0.1, -torch.rand(32, 4))
    one, both = pack([codes], CPU), pack([codes], CPU, find_kernel(), wide=True)
    exact = x @ codes.numbers().t()
    assert torch.equal(both.product(x[:4]), one.product(x[:4]))
    assert (both.product(x) - exact).norm() / exact.norm() < 0.02


@torch.inference_mode()
def test_packed_matrices_say_what_plain_ones_say(untied: Path) -> None:
    shape, ids = read_shape(untied), list(range(20))

    def made(layout: Layout) -> Decoder:
        return Decoder(shape, load_weights(untied, shape, torch.bfloat16, CPU, layout), torch.bfloat16, CPU)

    if not loading.can_pack():
        pytest.skip("no fast bf16 here")
    packed, plain = made(Layout(packed=True)), made(Layout())
    assert isinstance(packed.weights.layers[0].qkv, Packed) and isinstance(packed.weights.head, Packed)
    likeness = torch.nn.functional.cosine_similarity(logits(packed, ids), logits(plain, ids))
    assert likeness.min() > 0.999
    whole = Cast(random(8, 16).bfloat16())
    assert whole.product(random(2, 16)).dtype == torch.float32


def test_bf16_only_where_the_processor_multiplies_in_it(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    large = replace(read_shape(model), dtype="bfloat16")
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda: False)
    assert loading.dtype_for("auto", large, 10**9, CPU) == torch.float32
    monkeypatch.setattr(loading, "has_fast_bfloat16", lambda: True)
    assert loading.dtype_for("auto", large, 10**9, CPU) == torch.bfloat16
    assert loading.dtype_for("auto", large, 10**6, CPU) == torch.float32


@pytest.mark.parametrize("isa", ["AVX2", "AVX512_CORE"])
def test_held_to_older_instructions_the_check_finds_a_product_that_is_exact(isa: str) -> None:
    """oneDNN obeys, whatever the processor has; torch's own flags do not know of it."""
    code = (
        "import torch; from reason_engine.engines.embedded.model.int8 import *\n"
        "kernel = find_kernel(); assert kernel is None or kernel.is_exact()\n"
        "x = torch.randn(5, 512); code, scale = quantise(torch.randn(64, 512))\n"
        "a, b = Int8(code, scale, kernel).product(x), x @ (code.float() * scale[:, None]).t()\n"
        "assert (a - b).norm() / b.norm() < 0.03; print(kernel and kernel.levels)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("63", "None")


def test_two_codes_an_input_leave_only_the_weights_error() -> None:
    weight, x = random(64, 256), random(5, 256, seed=1)
    x[:, 7] *= 200
    code, scale = quantise(weight)
    exact = x @ (code.float() * scale[:, None]).t()
    for kernel in (find_kernel(), None):
        once, twice = Int8(code, scale, kernel), Int8(code, scale, kernel, twice=True)
        lost = [float((made.product(x) - exact).norm() / exact.norm()) for made in (once, twice)]
        assert lost[1] < 2e-4 < 1e-3 < lost[0]
        assert torch.equal(twice.product(x[:1]), twice.product(x)[:1])


@torch.inference_mode()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["lora", "prompt", "bottlenecks"])
def test_adapters_work_on_codes(tiny_qwen3: Path, tmp_path: Path, kind: str, dtype: str) -> None:
    """Each says over codes nearly what it says over the model as it is stored, and not what the base says."""
    made = {
        "lora": lambda: write_adapter(tmp_path / "a", 1, ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")),
        "prompt": lambda: write_prompt(tmp_path / "a", 2),
        "bottlenecks": lambda: write_bottlenecks(tmp_path / "a", 3),
    }
    folder, ids = made[kind](), list(range(40, 70))

    def adapted(decoder: Decoder) -> torch.Tensor:
        slots = AdapterSlots(decoder.shape, decoder.device)
        slots.load("a", folder, decoder.weights, set())
        slot, _ = slots.find("a")
        segment = new_segment(decoder, [*slots.learned(slot), *ids], [], 0, slot, keep=len(ids))
        ((_, hidden_NH),) = advance(decoder, [segment], 1000, slots.layers)
        return decoder.logits(hidden_NH)

    small, whole = load_decoder(tiny_qwen3, weights="int8", dtype=dtype), load_decoder(tiny_qwen3)
    like = torch.nn.functional.cosine_similarity
    assert like(adapted(small), adapted(whole)).mean() > 0.99
    assert like(adapted(small), logits(small, ids)).mean() < 0.98
