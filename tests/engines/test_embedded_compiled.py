"""The loops between products: what torch makes of the same numbers, and the same for a row wherever it stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from reason_engine.engines.embedded.model import compiled

NONE = np.empty(0, np.float32)
ROWS, INPUTS = 9, 203


def numbers(*size: int, scale: float = 1.0, seed: int = 0) -> compiled.Floats:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def rounded(
    x: compiled.Floats, factor: compiled.Floats, levels: int, codes: int
) -> tuple[compiled.Codes, compiled.Floats]:
    code, most = np.empty((codes * len(x), x.shape[1]), np.uint8), np.empty(len(x), np.float32)
    compiled.round_rows(x, factor, levels, code, most)
    return code, most


@pytest.mark.parametrize("levels", [127, 63])
@pytest.mark.parametrize("factor", [NONE, numbers(INPUTS, seed=1)])
def test_codes_are_the_nearest_ones(levels: int, factor: compiled.Floats) -> None:
    x = numbers(ROWS, INPUTS, scale=30)
    code, most = rounded(x, factor, levels, 1)
    scaled = x * factor if len(factor) else x
    assert np.array_equal(most, np.abs(scaled).max(1))
    exact = scaled.astype(np.float64) / most[:, None] * levels
    assert np.abs(code.astype(np.float64) - (levels + 1) - exact).max() <= 0.5 + 1e-4
    assert code.min() >= 1 and code.max() <= 2 * levels + 1


def test_second_codes_are_of_what_the_first_leave() -> None:
    x, levels = numbers(ROWS, INPUTS), 127
    code, most = rounded(x, NONE, levels, 2)
    assert np.array_equal(code[:ROWS], rounded(x, NONE, levels, 1)[0])
    both = (code[:ROWS].astype(np.float64) - 128) + (code[ROWS:].astype(np.float64) - 128) / (2 * levels)
    assert np.abs(both / levels * most[:, None] - x).max() < most.max() / (3 * levels * levels)


def test_a_row_of_zeros_has_codes_of_zero() -> None:
    code, most = rounded(np.zeros((2, 5), np.float32), NONE, 127, 2)
    assert (code == 128).all() and (most == compiled.LEAST).all()


@pytest.mark.parametrize("codes", [1, 2])
@pytest.mark.parametrize("bias", [NONE, numbers(INPUTS, seed=5)])
def test_sums_are_scaled_and_added(codes: int, bias: compiled.Floats) -> None:
    sums, most, stream = numbers(codes * ROWS, INPUTS), np.abs(numbers(ROWS)), numbers(ROWS, INPUTS, seed=3)
    exact = sums[:ROWS].astype(np.float64)
    if codes == 2:
        exact = exact + 0.25 * sums[ROWS:]
    exact = exact * most[:, None]
    out, added = np.empty((ROWS, INPUTS), np.float32), stream.copy()
    compiled.scale_rows(sums, most, bias, 0.25, out)
    compiled.add_rows(sums, most, 0.25, added)
    assert np.allclose(out, exact + (bias if len(bias) else 0), atol=1e-5)
    assert np.allclose(added, stream + exact, atol=1e-5)


def test_rows_are_normalised_as_by_torch() -> None:
    x, weight, eps = numbers(ROWS, INPUTS, scale=5), numbers(INPUTS, seed=1), 1e-5
    out = np.empty_like(x)
    compiled.unit_rows(x, weight, INPUTS**0.5, eps * INPUTS, out)
    exact = torch.nn.functional.rms_norm(torch.from_numpy(x), (INPUTS,), torch.from_numpy(weight), eps)
    assert np.allclose(out, exact.numpy(), atol=1e-5)


@pytest.mark.parametrize("normalised", [False, True])
def test_heads_are_turned_as_complex_numbers(normalised: bool) -> None:
    x, angle, weight = numbers(ROWS, 3, 16), numbers(ROWS, 8, seed=1), numbers(3, 16, seed=2)
    turn = np.stack([np.cos(angle), np.sin(angle)], -1).reshape(ROWS, 16).astype(np.float32)
    made = x.copy()
    compiled.turn_heads(made, weight if normalised else NONE.reshape(0, 0), 1e-6, turn)
    before = x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6) * weight if normalised else x
    pairs = before.reshape(ROWS, 3, 8, 2)
    exact = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)[:, None]
    assert np.allclose(made.reshape(ROWS, 3, 8, 2), np.stack([exact.real, exact.imag], -1), atol=1e-5)


def test_gates_are_those_of_torch_far_out_too() -> None:
    gate = np.concatenate(
        [numbers(8, 150, scale=4), np.array([[-1e9, -200, -90, -1e-9, 0, 1e-9, 90, 200, 1e9] * 10] * 8)], 1
    )
    x = np.concatenate([gate, numbers(8, 240, seed=2)], 1).astype(np.float32)
    out = np.empty((8, 240), np.float32)
    compiled.gate_rows(x, out)
    exact = torch.nn.functional.silu(torch.from_numpy(x[:, :240]).double()) * torch.from_numpy(x[:, 240:])
    assert np.allclose(out, exact.numpy(), rtol=2e-6, atol=1e-12)


def _round(x: compiled.Floats) -> compiled.Floats:
    return rounded(x, NONE, 127, 1)[0].astype(np.float32)


def _unit(x: compiled.Floats) -> compiled.Floats:
    out = np.empty_like(x)
    compiled.unit_rows(x, numbers(x.shape[1], seed=4), 3.0, 1e-3, out)
    return out


def _gate(x: compiled.Floats) -> compiled.Floats:
    out = np.empty((len(x), x.shape[1] // 2), np.float32)
    compiled.gate_rows(x, out)
    return out


@pytest.mark.parametrize("loop", [_round, _unit, _gate])
def test_a_row_is_the_same_alone_and_among_others(loop: Callable[[compiled.Floats], compiled.Floats]) -> None:
    x = numbers(16, 4864)
    together = loop(x)
    assert all(np.array_equal(together[n : n + 1], loop(x[n : n + 1].copy())) for n in range(16))
