"""Matrices that stay quantised in memory and are multiplied as they are: y = x Wᵀ with W_OI = scale · code + offset.

`Int8` follows its file: activations are rounded to 127 steps token by token, so that codes meet codes and their sums
are whole numbers. Few rows go through torch's kernel, which sums in fp32 and hands out bf16 (a relative error of up to
2⁻⁹); small matrices and many rows are turned into fp32, some outputs at a time, which is exact.
`Int4` goes through torch's kernel for groups of 4-bit codes, on which activations are bf16; `Nibbles` is turned back
into numbers where there is none (other devices, odd sizes).

`read_codes` reads them from AutoGPTQ's, AutoAWQ's and compressed-tensors' packing. GPTQ and AWQ put eight 4-bit codes
into an int32, GPTQ along the inputs, AWQ along the outputs in the order 0 2 4 6 1 3 5 7. Zeros are packed along the
outputs; AutoGPTQ stores them less one. W = (code - zero) · scale.

Shape suffixes: N rows, I inputs, O outputs, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reason_engine.engines.checkpoint.folder import Scheme
from reason_engine.errors import ModelLoadError

SMALL = 1 << 19
"""Codes of a matrix that is turned into fp32 whatever the number of rows: its time goes into calls."""
FEW, TILE = 48, 1 << 18
"""Rows up to which the kernel is quicker than turning a large matrix into fp32; codes that are turned into numbers at a
time, so that they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Codes:
    """A matrix as a file gives it: W = scale · code + offset, `scale` and `offset` a number a group of inputs.

    `order` puts the inputs in the order of the groups where they are not. `rounded`: activations are quantised too.
    """

    code_OI: Tensor
    scale_OG: Tensor
    offset_OG: Tensor | None = None
    order_I: Tensor | None = None
    rounded: bool = False

    def rows(self, reorder: Callable[[Tensor], Tensor]) -> Codes:
        """The outputs in another order."""
        offset = None if self.offset_OG is None else reorder(self.offset_OG)
        return Codes(reorder(self.code_OI), reorder(self.scale_OG), offset, self.order_I, self.rounded)


def pack(parts: Sequence[Codes], device: torch.device) -> Quantised:
    """One matrix of several that share their input, laid out as it is multiplied on this device."""
    first = parts[0]
    if any(not _same(part.order_I, first.order_I) for part in parts):
        return SideBySide([pack([part], device) for part in parts])
    code, scale = (torch.cat([getattr(part, name) for part in parts]).to(device) for name in ("code_OI", "scale_OG"))
    if first.rounded:
        return Int8(code, scale[:, 0].float())
    offsets = [part.offset_OG for part in parts if part.offset_OG is not None]
    offset = torch.cat(offsets).to(device)
    order = None if first.order_I is None else first.order_I.to(device)
    outputs, inputs = code.shape
    group = inputs // scale.shape[1]
    if device.type == "cpu" and outputs % 16 == 0 and group in (32, 64, 128, 256):
        return Int4(code, scale, offset, order)
    return Nibbles(code, scale, offset, order)


class Int8:
    """(O, I) codes of 8 bits and a scale for each output."""

    def __init__(self, code_OI: Tensor, scale_O: Tensor) -> None:
        self.code_OI, self.scale_O = code_OI.contiguous(), scale_O
        self.shape = (code_OI.shape[1], code_OI.shape[0])
        self._one_O = torch.ones(code_OI.shape[0], dtype=torch.bfloat16, device=code_OI.device)

    def product(self, x_NI: Tensor) -> Tensor:
        """Round each row to codes, multiply codes with codes, scale."""
        x = x_NI.float()
        step_N1 = x.abs().amax(1, keepdim=True).div_(127).clamp_min_(1e-12)
        code_NI = (x / step_N1).round_()
        if x.is_cuda:
            sums = _int_mm(code_NI, self.code_OI)
        elif self.code_OI.numel() > SMALL and x.shape[0] <= FEW:
            sums = torch.ops.aten._weight_int8pack_mm(code_NI.bfloat16(), self.code_OI, self._one_O).float()
        else:
            sums = _tiled(code_NI, self.code_OI)
        return sums.mul_(step_N1).mul_(self.scale_O).to(x_NI.dtype)


class Int4:
    """4-bit codes in groups, laid out for torch's CPU kernel."""

    def __init__(self, code_OI: Tensor, scale_OG: Tensor, offset_OG: Tensor, order_I: Tensor | None) -> None:
        self.shape = (code_OI.shape[1], code_OI.shape[0])
        self._group = code_OI.shape[1] // scale_OG.shape[1]
        self._order_I = order_I
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(code_OI.int(), 1)
        # the kernel's numbers are (code - 8) * scale + zero
        zero_OG = offset_OG.float() + 8 * scale_OG.float()
        self._table = torch.stack([scale_OG.float(), zero_OG], -1).transpose(0, 1).contiguous().bfloat16()

    def product(self, x_NI: Tensor) -> Tensor:
        """The kernel's product."""
        x = x_NI if self._order_I is None else x_NI.index_select(1, self._order_I)
        found = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self._packed, self._group, self._table)
        return found.to(x_NI.dtype)


class Nibbles:
    """4-bit codes, two a byte, turned into numbers for each product."""

    def __init__(self, code_OI: Tensor, scale_OG: Tensor, offset_OG: Tensor, order_I: Tensor | None) -> None:
        self.shape = (code_OI.shape[1], code_OI.shape[0])
        pairs = code_OI.to(torch.uint8).unflatten(1, (-1, 2))
        self._pairs = pairs[..., 0] | pairs[..., 1] << 4
        self._scale_OG1, self._offset_OG1 = scale_OG.unsqueeze(-1), offset_OG.unsqueeze(-1)
        self._order_I = order_I

    def product(self, x_NI: Tensor) -> Tensor:
        """The product with the numbers that the codes stand for."""
        x = x_NI if self._order_I is None else x_NI.index_select(1, self._order_I)
        code_OI = torch.stack([self._pairs & 15, self._pairs >> 4], -1).flatten(1)
        grouped = code_OI.view(*self._scale_OG1.shape[:2], -1).to(x.dtype)
        weight_OI = (grouped * self._scale_OG1.to(x.dtype) + self._offset_OG1.to(x.dtype)).flatten(1)
        return torch.mm(x, weight_OI.t())


class SideBySide:
    """Matrices side by side that share their input but not the order of it."""

    def __init__(self, parts: Sequence[Quantised]) -> None:
        self._parts = parts
        self.shape = (parts[0].shape[0], sum(part.shape[1] for part in parts))

    def product(self, x_NI: Tensor) -> Tensor:
        """The parts' products, one after the other."""
        return torch.cat([part.product(x_NI) for part in self._parts], 1)


Quantised = Int8 | Int4 | Nibbles | SideBySide
"""A matrix in the place of one that is (in, out); `product` of rows with it is (N, O), in the type of the rows."""


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
    padded = code_NI.new_zeros(max(32, -(-rows // 8) * 8), code_NI.shape[1], dtype=torch.int8)
    padded[:rows] = code_NI.to(torch.int8)
    return torch.ops.aten._int_mm(padded, code_OI.t())[:rows].float()


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


_AWQ = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where code i of eight stands."""


def is_kept(name: str) -> bool:
    """Whether a tensor of that name keeps the type that it has in the file."""
    return name.endswith((".qweight", ".qzeros", ".scales", ".g_idx", ".weight_scale"))


def outputs_of(tensors: Mapping[str, Tensor], at: str, scheme: Scheme | None) -> int:
    """How many outputs the matrix of that name has. Raises KeyError where it is missing."""
    if at + ".qweight" in tensors:
        return tensors[at + ".qweight"].shape[1] * (8 if scheme == "awq" else 1)
    return tensors[at + ".weight"].shape[0]


def read_codes(tensors: Mapping[str, Tensor], at: str, shape: tuple[int, int], scheme: Scheme) -> Codes | None:
    """The matrix of that name and (out, in) shape; None where it is not quantised.

    Raises KeyError for a part that is missing, ModelLoadError for one that does not fit.
    """
    if scheme == "w8a8":
        weight = tensors[at + ".weight"]
        if weight.dtype != torch.int8:
            return None
        scale = tensors[at + ".weight_scale"].float().reshape(-1, 1)
        return _checked(Codes(weight, scale, rounded=True), at, shape)
    if at + ".qweight" not in tensors:
        return None
    packed, zeros, scale_GO = (tensors[f"{at}.{name}"] for name in ("qweight", "qzeros", "scales"))
    order = None
    if scheme == "awq":
        code_OI = eight_codes(packed, _AWQ).t()
        zero_GO = eight_codes(zeros, _AWQ)
    else:
        code_OI = eight_codes(packed.t().contiguous())
        zero_GO = eight_codes(zeros) + int(scheme == "gptq")
        code_OI, order = _grouped(code_OI, tensors.get(at + ".g_idx"), scale_GO.shape[0])
    scale_OG = scale_GO.t().float().contiguous()
    offset_OG = -zero_GO.t().float() * scale_OG
    return _checked(Codes(code_OI.to(torch.uint8), scale_OG, offset_OG, order), at, shape)


def eight_codes(packed: Tensor, places: Sequence[int] = range(8)) -> Tensor:
    """Eight codes of each int32 of the last dimension, in order; `places[i]`: where code i stands."""
    shifts = torch.tensor([4 * places[i] for i in range(8)], dtype=torch.int32)
    return (packed.unsqueeze(-1) >> shifts & 15).flatten(-2)


def _grouped(code_OI: Tensor, group_I: Tensor | None, groups: int) -> tuple[Tensor, Tensor | None]:
    """Inputs of one group side by side, and the order of the inputs that does it; None where they are already."""
    inputs = code_OI.shape[1]
    plain = torch.arange(inputs, dtype=torch.int32) // -(-inputs // groups)
    if group_I is None or torch.equal(group_I.int(), plain):
        return code_OI, None
    order = torch.argsort(group_I, stable=True)
    return code_OI.index_select(1, order), order


def _checked(found: Codes, at: str, shape: tuple[int, int]) -> Codes:
    outputs, inputs = found.code_OI.shape
    groups = found.scale_OG.shape[1]
    offset = found.scale_OG if found.offset_OG is None else found.offset_OG
    whole = tuple(found.code_OI.shape) == shape and inputs % groups == 0
    if not whole or found.scale_OG.shape[0] != outputs or offset.shape != found.scale_OG.shape:
        raise ModelLoadError(
            f"tensor {at} is {tuple(found.code_OI.shape)} with {tuple(found.scale_OG.shape)} scales where config.json "
            f"asks for {shape}"
        )
    return found
