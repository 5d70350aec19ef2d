"""Matrices of 8-bit codes: y = x Wᵀ with W_OI = scale_O · code_OI, and activations rounded to codes row by row.

A row is x = amax(|x|) / levels · code, so that codes meet codes and their sums are whole numbers: a row's product does
not depend on what stands beside it. W8A8 with dynamic scales for each token, as in LLM.int8() (Dettmers et al. 2022,
arXiv:2208.07339, section 3, vector-wise quantisation) without its outlier columns: whole matrices that lose by it stay
as they were (`sensitivity`).

`Kernel` is oneDNN's product of unsigned with signed bytes. Codes of activations are moved up to be unsigned; what
that adds, the kernel takes off again. Without VNNI such a product adds pairs of bytes in 16 bits
and saturates; codes of 7 bits do not (2 · 127 · 127 < 2¹⁵). Which of the two is exact here is tried, not asked.
Where neither is, few rows of a large matrix go through torch's kernel, which sums in fp32 and hands out bf16 (an error
of up to 2⁻⁹); small matrices and many rows are turned into fp32, some outputs at a time, which is exact.

Shape suffixes: N rows, I inputs, O outputs, V vocabulary, H hidden.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from reason_engine.engines.embedded.model import compiled

LEAST = 1e-12
"""Of a row's largest number, that its quotient be finite."""
LEVELS = 127
NONE = np.empty(0, np.float32)
KEPT = 64
"""Rows up to which room for codes is kept from one product to the next."""
SMALL, FEW, TILE = 1 << 19, 48, 1 << 18
"""Without a kernel: codes of a matrix that is turned into fp32 whatever the number of rows, since its time goes into
calls; rows up to which torch's kernel is quicker for larger ones; codes that are turned into numbers at a time, so that
they stay in the cache."""

Multiply = Callable[[Tensor, int, Tensor, Tensor, Tensor], Tensor]
"""(codes of activations in uint8, what they were moved up by, packed weights, scales, zeros) -> (N, O) in fp32."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A product of 8-bit codes. Codes of activations lie within ± `levels`."""

    levels: int = LEVELS
    multiply: Multiply = lambda code_NI, zero, packed, scale_O, zero_O: torch.ops.onednn.qlinear_pointwise.default(
        code_NI, 1.0, zero, packed, scale_O, zero_O, None, 1.0, 0, torch.float32, "none", [], ""
    )

    @property
    def zero(self) -> int:
        """What codes are moved up by."""
        return self.levels + 1

    def pack(self, code_OI: Tensor) -> Tensor:
        """The weights as the product wants them."""
        return torch.ops.onednn.qlinear_prepack(code_OI, None)

    def is_exact(self) -> bool:
        """Whether whole numbers come out, the largest among them that fp32 holds, at few rows and many."""
        generator = torch.Generator().manual_seed(0)
        code_OI = torch.randint(-LEVELS, LEVELS + 1, (96, 384), generator=generator, dtype=torch.int8)
        code_OI[:2] = torch.tensor([[LEVELS], [-LEVELS]], dtype=torch.int8)
        packed = self.pack(code_OI)
        scale_O, zero_O = torch.ones(96), torch.zeros(96, dtype=torch.int32)
        for rows in (1, 2, 7, 16, 33):
            code_NI = torch.randint(-self.levels, self.levels + 1, (rows, 384), generator=generator)
            code_NI[0] = self.levels if rows % 2 else -self.levels
            sums = self.multiply((code_NI + self.zero).to(torch.uint8), self.zero, packed, scale_O, zero_O)
            if not torch.equal(sums.double(), code_NI.double() @ code_OI.double().t()):
                return False
        return True

    def is_fast(self) -> bool:
        """Whether it is not far slower than fp32: some machines have but a reference implementation of it."""
        code_OI = torch.ones(1024, 1024, dtype=torch.int8)
        packed, weight_IO = self.pack(code_OI), code_OI.float().t().contiguous()
        scale_O, zero_O = torch.ones(1024), torch.zeros(1024, dtype=torch.int32)
        code_NI = torch.full((8, 1024), self.zero, dtype=torch.uint8)
        whole = _best(lambda: self.multiply(code_NI, self.zero, packed, scale_O, zero_O))
        return whole < 20 * _best(lambda: torch.mm(code_NI.float(), weight_IO))


def find_kernel(multiply: Multiply | None = None) -> Kernel | None:
    """The most exact product that this machine has; None where none passes its check."""
    for levels in (LEVELS, LEVELS // 2):
        kernel = Kernel(levels, multiply) if multiply else Kernel(levels)
        try:
            if kernel.is_exact() and kernel.is_fast():
                return kernel
        except (RuntimeError, AttributeError, NotImplementedError):  # built without oneDNN, or for another processor
            continue
    return None


class Int8:
    """(O, I) codes of 8 bits and a scale for each output. `input_I`: what inputs are multiplied with first, where the
    codes are of a matrix whose columns were divided by it. `twice`: inputs take two codes, the second of what the first
    leaves; both go through one product as two rows."""

    def __init__(
        self,
        code_OI: Tensor,
        scale_O: Tensor,
        kernel: Kernel | None = None,
        input_I: Tensor | None = None,
        *,
        twice: bool = False,
    ) -> None:
        self.twice = twice
        from reason_engine.engines.embedded.model import compiled

        outputs, inputs = code_OI.shape
        self.shape, self._loops = (inputs, outputs), compiled
        self._kernel = kernel if code_OI.device.type == "cpu" else None
        self._levels = self._kernel.levels if self._kernel else LEVELS
        self._scale_O = scale_O.float() / self._levels
        self._half_I = torch.full((inputs,), self._levels + 1.5, device=code_OI.device)
        self._code_OI = self._kernel.pack(code_OI.contiguous()) if self._kernel else code_OI.contiguous()
        self._input_I = input_I
        self._codes: _Codes | None = None
        self._factor_I = (torch.empty(0) if input_I is None else input_I.float().cpu()).numpy()
        self._zero_O = torch.zeros(outputs, dtype=torch.int32, device=code_OI.device)
        self._one_O = torch.ones(outputs, dtype=torch.bfloat16, device=code_OI.device)

    def product(self, x_NI: Tensor) -> Tensor:
        """Round each row to codes, multiply codes with codes, scale."""
        out_NO = torch.empty(x_NI.shape[0], self.shape[1], device=x_NI.device)
        self.into(x_NI.float(), None, out_NO)
        return out_NO.to(x_NI.dtype)

    def into(self, x_NI: Tensor, bias_O: Tensor | None, out_NO: Tensor) -> None:
        """The same of rows in fp32, plus a bias, into `out_NO`, fp32 and contiguous."""
        if x_NI.device.type != "cpu":
            sums_NO, most_N1 = self._sums(x_NI)
            torch.mul(sums_NO, most_N1, out=out_NO)
            if bias_O is not None:
                out_NO.add_(bias_O)
            return
        sums_MO, most_N = self._compiled_sums(x_NI)
        bias = NONE if bias_O is None else bias_O.numpy()
        self._loops.scale_rows(sums_MO, most_N, bias, 0.5 / self._levels, out_NO.numpy())

    def add_to(self, stream_NO: Tensor, x_NI: Tensor) -> None:
        """Add the product of rows in fp32 to `stream_NO`, fp32 and contiguous."""
        if x_NI.device.type != "cpu":
            stream_NO.addcmul_(*self._sums(x_NI))
            return
        sums_MO, most_N = self._compiled_sums(x_NI)
        self._loops.add_rows(sums_MO, most_N, 0.5 / self._levels, stream_NO.numpy())

    def _compiled_sums(self, x_NI: Tensor) -> tuple[compiled.Floats, compiled.Floats]:
        """Sums of one product of codes, of two rows for each where inputs take two codes; and the rows' scales."""
        codes, rows, size = self._codes, x_NI.shape[0], (1 + self.twice) * x_NI.shape[0]
        if codes is None or (len(codes.code_MI), len(codes.most_N)) != (size, rows):
            codes = _Codes(size, rows, self.shape[0])
            self._codes = codes if rows <= KEPT else None
        self._loops.round_rows(x_NI.contiguous().numpy(), self._factor_I, self._levels, codes.code_MI, codes.most_N)
        return self._products(codes.tensor_MI).numpy(), codes.most_N

    def _sums(self, x_NI: Tensor) -> tuple[Tensor, Tensor]:
        """(N, O) and (N, 1), whose product is the product."""
        if self._input_I is not None:
            x_NI = x_NI * self._input_I
        most_N1 = x_NI.abs().amax(1, keepdim=True).clamp_min_(LEAST)
        # Moved up and cut off, which rounds.
        moved_NI = torch.addcdiv(self._half_I, x_NI, most_N1, value=self._levels)
        code_NI = moved_NI.to(torch.uint8)
        if not self.twice:
            return self._products(code_NI), most_N1
        finer_NI = moved_NI.frac_().mul_(2 * self._levels).add_(1.5).to(torch.uint8)
        sums_MO = self._products(torch.cat([code_NI, finer_NI]))
        rows = x_NI.shape[0]
        return sums_MO[:rows].add_(sums_MO[rows:], alpha=0.5 / self._levels), most_N1

    def _products(self, code_NI: Tensor) -> Tensor:
        """Of codes that are moved up, by the outputs' scales."""
        if self._kernel is not None:
            return self._kernel.multiply(code_NI, self._kernel.zero, self._code_OI, self._scale_O, self._zero_O)
        return self._plain_sums(code_NI.to(torch.int16).sub_(self._levels + 1)).mul_(self._scale_O)

    def _plain_sums(self, code_NI: Tensor) -> Tensor:
        if code_NI.is_cuda:
            return _int_mm(code_NI.to(torch.int8), self._code_OI)
        if self._code_OI.numel() > SMALL and code_NI.shape[0] <= FEW:
            return torch.ops.aten._weight_int8pack_mm(code_NI.bfloat16(), self._code_OI, self._one_O).float()
        return _tiled(code_NI.float(), self._code_OI)


class _Codes:
    """Room for so many rows of codes, as a tensor and as the array that is the same memory, and for so many scales."""

    def __init__(self, codes: int, rows: int, inputs: int) -> None:
        self.tensor_MI = torch.empty(codes, inputs, dtype=torch.uint8)
        self.code_MI, self.most_N = self.tensor_MI.numpy(), np.empty(rows, np.float32)


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """An embedding of codes, read row by row: in the place of a tensor (V, H) of fp32."""

    code_VH: Tensor
    scale_V: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.code_VH.shape

    def index_select(self, dim: int, index_N: Tensor) -> Tensor:
        """As a tensor's; rows only."""
        assert dim == 0
        return self.code_VH.index_select(0, index_N).float().mul_(self.scale_V.index_select(0, index_N).unsqueeze(1))


def quantise(weight_OI: Tensor, factor_I: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes to the nearest, (O, I), and a scale for each output, some outputs at a time; of the matrix with its columns
    times `factor_I`."""
    outputs, inputs = weight_OI.shape
    code_OI = torch.empty(outputs, inputs, dtype=torch.int8, device=weight_OI.device)
    scale_O = torch.empty(outputs, device=weight_OI.device)
    step = max(1, TILE // inputs)
    for at in range(0, outputs, step):
        some_OI = weight_OI[at : at + step].float()
        if factor_I is not None:
            some_OI = some_OI * factor_I
        scale_O1 = some_OI.abs().amax(1, keepdim=True).div_(LEVELS).clamp_min_(LEAST)
        code_OI[at : at + step] = (some_OI / scale_O1).round_()
        scale_O[at : at + step] = scale_O1[:, 0]
    return code_OI, scale_O


def _tiled(code_NI: Tensor, code_OI: Tensor) -> Tensor:
    """Sums of products of codes, in fp32: exact up to 2²⁴."""
    outputs, inputs = code_OI.shape
    step = max(1, TILE // inputs)
    if step >= outputs:
        return torch.mm(code_NI, code_OI.float().t())
    sums = code_NI.new_empty(code_NI.shape[0], outputs)
    for at in range(0, outputs, step):
        sums[:, at : at + step] = torch.mm(code_NI, code_OI[at : at + step].float().t())
    return sums


def _int_mm(code_NI: Tensor, code_OI: Tensor) -> Tensor:
    """Whole numbers on a GPU, whose kernel wants more than 16 rows."""
    rows = code_NI.shape[0]
    padded = code_NI.new_zeros(max(32, -(-rows // 8) * 8), code_NI.shape[1])
    padded[:rows] = code_NI
    return torch.ops.aten._int_mm(padded, code_OI.t())[:rows].float()


def _best(call: Callable[[], object]) -> float:
    """The least of a few times, in seconds."""
    call()
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
