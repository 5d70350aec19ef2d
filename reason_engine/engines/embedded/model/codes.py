"""Codes of quantised matrices, read from AutoGPTQ's, AutoAWQ's and compressed-tensors' packing.

GPTQ and AWQ put eight 4-bit codes into an int32, GPTQ along the inputs, AWQ along the outputs in the order
0 2 4 6 1 3 5 7. Zeros are packed along the outputs; AutoGPTQ stores them less one. W = (code - zero) · scale.

Shape suffixes: I inputs, O outputs, G groups of inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reason_engine.engines.checkpoint.folder import Scheme
from reason_engine.errors import ModelLoadError


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

    def numbers(self) -> Tensor:
        """The matrix that they stand for, (O, I) in fp32, its inputs in the order of the groups."""
        grouped = self.code_OI.unflatten(1, (self.scale_OG.shape[1], -1)).float().mul_(self.scale_OG[..., None].float())
        if self.offset_OG is not None:
            grouped.add_(self.offset_OG[..., None].float())
        return grouped.flatten(1)


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
