"""The loops between products, compiled by numba when they are first called: one call where torch makes many.

One token of a model in 8-bit codes passes about forty small operations of torch a layer, each of a few microseconds
for some thousand numbers. Each loop here goes once over its rows instead, one row after the other on one thread, so
that a row's numbers do not depend on what stands beside it. Sums over a row are taken in lanes: their rounding depends
on its length alone.

exp is 2^k p(f) with k + f = x log₂ e, where p interpolates 2^f at seven Chebyshev nodes of [0, 1] (relative error
below 10⁻⁶).

Shape suffixes: N rows, I inputs, M rows of codes (N, or 2 N), H heads, D head size, G gated outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
F = TypeVar("F", bound=Callable[..., Any])

LEAST = np.float32(1e-12)
"""Of a row's largest number, that its quotient be finite."""
_ONE, _HALF, _POSITIVE = np.float32(1), np.float32(1.5), np.int32(0x7FFFFFFF)
_LOG2_E, _FARTHEST = np.float32(np.log2(np.e)), np.float32(126)
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (
    Chebyshev.interpolate(np.exp2, 6, [0, 1]).convert(kind=Polynomial).coef.astype(np.float32)  # type: ignore[arg-type]
)


def _compiled(function: F) -> F:
    """Compiled for this machine, and kept on disk where there is a place for it."""
    how = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
    try:
        return cast(F, numba.njit(function, cache=True, **how))
    except RuntimeError:  # neither this folder nor the user's cache can be written
        return cast(F, numba.njit(function, **how))


@_compiled
def round_rows(x_NI: Floats, factor_I: Floats, levels: int, code_MI: Codes, most_N: Floats) -> None:
    """Round x · factor (a factor of no length: x) to codes within ± levels, moved up by levels + 1: into `code_MI`, and
    each row's largest number into `most_N`. Of 2 N rows of codes the second N are of what the first leave, in units of
    1 / (2 levels)."""
    rows, inputs = x_NI.shape
    scaled_I, largest_1 = np.empty(inputs, np.float32), np.empty(1, np.int32)
    bits_I = scaled_I.view(np.int32)  # of positive numbers, in their order: a maximum of whole numbers is vectorised
    middle, finer = np.float32(levels) + _HALF, np.float32(2 * levels)
    for n in range(rows):
        if factor_I.shape[0] > 0:
            for i in range(inputs):
                scaled_I[i] = x_NI[n, i] * factor_I[i]
        else:
            for i in range(inputs):
                scaled_I[i] = x_NI[n, i]
        largest = np.int32(0)
        for i in range(inputs):
            largest = max(largest, bits_I[i] & _POSITIVE)
        largest_1[0] = largest
        most = max(largest_1.view(np.float32)[0], LEAST)
        most_N[n] = most
        step = np.float32(levels) / most
        if code_MI.shape[0] > rows:
            for i in range(inputs):
                moved = scaled_I[i] * step + middle
                code = np.uint8(moved)
                code_MI[n, i] = code
                code_MI[rows + n, i] = np.uint8((moved - np.float32(code)) * finer + _HALF)
        else:
            for i in range(inputs):
                code_MI[n, i] = np.uint8(scaled_I[i] * step + middle)


@_compiled
def scale_rows(sums_MO: Floats, most_N: Floats, bias_O: Floats, finer: float, out_NO: Floats) -> None:
    """Products of codes from their sums: each row times its `most_N`, after the second N rows were added times `finer`,
    where there are so many; plus the bias (of no length: none); into `out_NO`."""
    rows, outputs = out_NO.shape
    for n in range(rows):
        most, out = most_N[n], out_NO[n]
        if sums_MO.shape[0] > rows:
            for i in range(outputs):
                out[i] = (sums_MO[n, i] + np.float32(finer) * sums_MO[rows + n, i]) * most
        else:
            for i in range(outputs):
                out[i] = sums_MO[n, i] * most
        if bias_O.shape[0] > 0:
            for i in range(outputs):
                out[i] += bias_O[i]


@_compiled
def add_rows(sums_MO: Floats, most_N: Floats, finer: float, stream_NO: Floats) -> None:
    """The same without a bias, added to `stream_NO`."""
    rows, outputs = stream_NO.shape
    for n in range(rows):
        most, stream = most_N[n], stream_NO[n]
        if sums_MO.shape[0] > rows:
            for i in range(outputs):
                stream[i] += (sums_MO[n, i] + np.float32(finer) * sums_MO[rows + n, i]) * most
        else:
            for i in range(outputs):
                stream[i] += sums_MO[n, i] * most


@_compiled
def unit_rows(x_NI: Floats, weight_I: Floats, root: float, least: float, out_NI: Floats) -> None:
    """Normalise rows: root · x · weight / sqrt(|x|² + least), into `out_NI`."""
    rows, inputs = x_NI.shape
    for n in range(rows):
        total = np.float32(0)
        for i in range(inputs):
            total += x_NI[n, i] * x_NI[n, i]
        unit = np.float32(root) / np.sqrt(total + np.float32(least))
        for i in range(inputs):
            out_NI[n, i] = x_NI[n, i] * unit * weight_I[i]


@_compiled
def turn_heads(x_NHD: Floats, weight_HD: Floats, least: float, turn_ND: Floats) -> None:
    """Normalise each head as `unit_rows` does, with root 1 (by a weight of no length: not at all), then turn its pairs
    of numbers by the cosines and sines that alternate in `turn_ND`; in place."""
    rows, heads, size = x_NHD.shape
    for n in range(rows):
        turn = turn_ND[n]
        for h in range(heads):
            head = x_NHD[n, h]
            if weight_HD.shape[0] > 0:
                total = np.float32(0)
                for i in range(size):
                    total += head[i] * head[i]
                unit = _ONE / np.sqrt(total + np.float32(least))
                for i in range(size):
                    head[i] *= unit * weight_HD[h, i]
            for p in range(size // 2):
                real, imaginary, cosine, sine = head[2 * p], head[2 * p + 1], turn[2 * p], turn[2 * p + 1]
                head[2 * p] = real * cosine - imaginary * sine
                head[2 * p + 1] = real * sine + imaginary * cosine


@_compiled
def gate_rows(x_NI: Floats, out_NG: Floats) -> None:
    """Gate rows: silu of the first half of each row times the second: g / (1 + exp(-g)) · u, into `out_NG`."""
    rows, gated = out_NG.shape
    power_G = np.empty(gated, np.float32)
    bits_G = power_G.view(np.int32)
    for n in range(rows):
        for i in range(gated):
            bits_G[i] = (np.int32(np.floor(_exponent(x_NI[n, i]))) + np.int32(127)) << np.int32(23)
        for i in range(gated):
            gate = x_NI[n, i]
            exponent = _exponent(gate)
            f = exponent - np.floor(exponent)
            p = _P0 + f * (_P1 + f * (_P2 + f * (_P3 + f * (_P4 + f * (_P5 + f * _P6)))))
            out_NG[n, i] = gate / (_ONE + p * power_G[i]) * x_NI[n, gated + i]


@_compiled
def _exponent(gate: np.float32) -> np.float32:
    """-gate log₂ e, within what an fp32 holds as an exponent."""
    exponent = -gate * _LOG2_E
    exponent = exponent if exponent < _FARTHEST else _FARTHEST
    return exponent if exponent > -_FARTHEST else -_FARTHEST
