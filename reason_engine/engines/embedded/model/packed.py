"""bf16 matrices in the layout that oneDNN multiplies with, made once at load instead of at every product.

One row is multiplied in about two thirds of the time of a plain matrix, many rows in nine tenths. The packed form can
only be multiplied with: its rows cannot be read again.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Packed:
    """A packed matrix. Products are in the type of the rows."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.shape = (weight_OI.shape[1], weight_OI.shape[0])
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.bfloat16().contiguous(), None)

    def product(self, x_NI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """Rows times the matrix, plus a bias."""
        return self.rounded(x_NI, bias_O).to(x_NI.dtype)

    def rounded(self, x_NI: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """The same in bf16, as the sums are rounded."""
        return torch.ops.mkldnn._linear_pointwise.default(x_NI.bfloat16(), self._weight, bias_O, "none", [], "")


class Cast:
    """A matrix that is multiplied in its own type whatever that of the rows."""

    def __init__(self, weight_OI: Tensor) -> None:
        self.shape = (weight_OI.shape[1], weight_OI.shape[0])
        self._weight = weight_OI.t()

    def product(self, x_NI: Tensor) -> Tensor:
        """Rows times the matrix."""
        return torch.mm(x_NI.to(self._weight.dtype), self._weight).to(x_NI.dtype)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies in bf16; others do so by fp32, in more than twice its time."""
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def can_pack() -> bool:
    """Whether packing works here: a product is tried against the plain one."""
    if not has_fast_bfloat16() or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(96, 160, generator=generator).bfloat16()
    x_NI, bias_O = torch.randn(5, 160, generator=generator).bfloat16(), torch.ones(96).bfloat16()
    try:
        made = Packed(weight_OI)
        pairs = [(made.product(x_NI[:n], bias_O), x_NI[:n].float() @ weight_OI.float().t() + 1) for n in (1, 5)]
    except (RuntimeError, AttributeError, NotImplementedError):  # built without oneDNN, or held to fewer instructions
        return False
    return all(torch.allclose(found.float(), exact, atol=0.1, rtol=0.02) for found, exact in pairs)
