"""Matrices that stay quantised in memory and are multiplied as they are: y = x Wᵀ with W_OI = scale · code + offset.

`Int8` (`int8`) rounds activations too. `Int4` goes through torch's kernel for groups of 4-bit codes, on which
activations are bf16; it is good for few rows, so that a matrix may hold a copy of 8-bit codes for more of them.
`Nibbles` is turned back into numbers where there is no kernel (other devices, odd sizes).

Shape suffixes: N rows, I inputs, O outputs, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from reason_engine.engines.embedded.model.codes import Codes
from reason_engine.engines.embedded.model.int8 import Int8, Kernel, quantise


class Product(Protocol):
    """A matrix in the place of one that is (in, out); `product` of rows with it is (N, O), in the type of the rows."""

    shape: tuple[int, int]

    def product(self, x_NI: Tensor) -> Tensor:
        """Rows times the matrix."""
        ...


FEW = 4
"""Rows up to which the product of 4-bit codes is as quick as that of 8-bit ones."""


def pack(parts: Sequence[Codes], device: torch.device, kernel: Kernel | None = None, *, wide: bool = False) -> Product:
    """One matrix of several that share their input, laid out as it is multiplied on this device. `wide`: 4-bit codes
    get a copy of 8 bits for many rows."""
    first = parts[0]
    if any(not _same(part.order_I, first.order_I) for part in parts):
        return SideBySide([pack([part], device, kernel, wide=wide) for part in parts])
    code, scale = (torch.cat([getattr(part, name) for part in parts]).to(device) for name in ("code_OI", "scale_OG"))
    if first.rounded:
        return Int8(code, scale[:, 0].float(), kernel)
    offsets = [part.offset_OG for part in parts if part.offset_OG is not None]
    offset = torch.cat(offsets).to(device)
    order = None if first.order_I is None else first.order_I.to(device)
    outputs, inputs = code.shape
    group = inputs // scale.shape[1]
    if device.type == "cpu" and outputs % 16 == 0 and group in (32, 64, 128, 256):
        many = Int8(*quantise(Codes(code, scale, offset).numbers()), kernel) if wide and kernel else None
        return Int4(code, scale, offset, order, many)
    return Nibbles(code, scale, offset, order)


class Int4:
    """4-bit codes in groups, laid out for torch's CPU kernel; `many` is the same matrix for more than a few rows."""

    def __init__(
        self, code_OI: Tensor, scale_OG: Tensor, offset_OG: Tensor, order_I: Tensor | None, many: Int8 | None = None
    ) -> None:
        self.shape = (code_OI.shape[1], code_OI.shape[0])
        self._many = many
        self._group = code_OI.shape[1] // scale_OG.shape[1]
        self._order_I = order_I
        self._packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(code_OI.int(), 1)
        # the kernel's numbers are (code - 8) * scale + zero
        zero_OG = offset_OG.float() + 8 * scale_OG.float()
        self._table = torch.stack([scale_OG.float(), zero_OG], -1).transpose(0, 1).contiguous().bfloat16()

    def product(self, x_NI: Tensor) -> Tensor:
        """The kernel's product, or that of the copy."""
        x = x_NI if self._order_I is None else x_NI.index_select(1, self._order_I)
        if self._many is not None and x.shape[0] > FEW:
            return self._many.product(x)
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

    def __init__(self, parts: Sequence[Product]) -> None:
        self._parts = parts
        self.shape = (parts[0].shape[0], sum(part.shape[1] for part in parts))

    def product(self, x_NI: Tensor) -> Tensor:
        """The parts' products, one after the other."""
        return torch.cat([part.product(x_NI) for part in self._parts], 1)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
