"""Layers with less between them: what is not a matrix product is done in place, and little is kept for the way back.

    LoRA     y = x Wᵀ + b + s (x Aᵀ) Bᵀ          dx = g W + s (g B) A,  dA = s (g B)ᵀ x,  dB = s gᵀ (x Aᵀ)
    SwiGLU   y = silu(g) u                        silu(g) = g σ(g) is worked out again on the way back

Of a LoRA the library's layer makes five tensors of the output's size where one is needed, which on a CPU costs as much
as a third of its products; here the low-rank part is added into the product. Of the gated unit two tensors of the inner
size are kept instead of four. On a GPU the same is done by Liger's kernels where they are installed (`liger`).

Shape suffixes: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, down_RI: Tensor, up_OR: Tensor, scale: float
    ) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        low_NR = x_NI @ down_RI.T
        y_NO = x_NI @ weight_OI.T if bias_O is None else torch.addmm(bias_O, x_NI, weight_OI.T)
        y_NO.addmm_(low_NR, up_OR.T, alpha=scale)
        ctx.save_for_backward(x_NI, low_NR, weight_OI, down_RI, up_OR)
        ctx.scale, ctx.shape, ctx.has_bias = scale, x.shape, bias_O is not None
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x_NI, low_NR, weight_OI, down_RI, up_OR = ctx.saved_tensors
        grad_NO = grads[0].reshape(-1, weight_OI.shape[0])
        back_NR = (grad_NO @ up_OR).mul_(ctx.scale)
        wanted = ctx.needs_input_grad
        x = weight = bias = None
        if wanted[0]:
            x = (grad_NO @ weight_OI).addmm_(back_NR, down_RI).view(ctx.shape)
        if wanted[1]:  # a frozen weight's importance may be asked for
            weight = grad_NO.T @ x_NI
        if ctx.has_bias and wanted[2]:
            bias = grad_NO.sum(0)
        down = back_NR.T @ x_NI if wanted[3] else None
        up = (grad_NO.T @ low_NR).mul_(ctx.scale) if wanted[4] else None
        return x, weight, bias, down, up, None


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up = ctx.saved_tensors
        grad = grads[0]
        share = gate.sigmoid()
        active = gate * share
        back_up = grad * active
        # d silu = σ(g) (1 + g (1 − σ(g))) = σ(g) + silu(g) (1 − σ(g))
        slope = share.addcmul_(active, 1 - share)
        return slope.mul_(grad).mul_(up), back_up


def fuse(model: Any) -> None:
    """Let the layers of a model be as above where they are of the forms that are meant; all others stay."""
    for module in model.modules():
        if _is_plain_lora(module):
            module.forward = MethodType(_lora_forward, module)  # bound, so that a copy's is its own
        elif _is_swiglu(module):
            module.forward = MethodType(_swiglu_forward, module)


def liger(model: Any) -> bool:
    """Liger's kernels for norms, rotations and gated units of a model on a GPU, where it is installed and knows it."""
    if not next(model.parameters()).is_cuda or find_spec("liger_kernel") is None:
        return False
    from liger_kernel.transformers import _apply_liger_kernel_to_instance  # type: ignore[import-not-found]

    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
    return True


def _lora_forward(layer: Any, x: Tensor, *others: Any, **named: Any) -> Tensor:
    del others, named
    (name,) = layer.active_adapters
    base = layer.base_layer
    parts = (base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight)
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
        x, parts = x.to(kind), tuple(None if one is None else one.to(kind) for one in parts)
    return _LoraLinear.apply(x, *parts, float(layer.scaling[name]))  # type: ignore[no-any-return]


def _swiglu_forward(mlp: Any, x: Tensor) -> Tensor:
    return mlp.down_proj(_SwiGlu.apply(mlp.gate_proj(x), mlp.up_proj(x)))


def _is_plain_lora(module: nn.Module) -> bool:
    """A low-rank part beside a matrix in full precision, and nothing more."""
    if type(module).__module__ != "peft.tuners.lora.layer" or type(module).__name__ != "Linear":
        return False
    found: Any = module
    name, *more = found.active_adapters
    return (
        not more
        and not found.lora_variant
        and type(found.base_layer) is nn.Linear
        and isinstance(found.lora_dropout[name], nn.Identity)
        and found.lora_A[name].bias is None
        and found.lora_B[name].bias is None
    )


def _is_swiglu(module: nn.Module) -> bool:
    """A gated unit as Llama's and Qwen's are: down(silu(gate(x)) up(x))."""
    names = {name for name, _ in module.named_children()}
    if names - {"act_fn"} != {"gate_proj", "up_proj", "down_proj"}:
        return False
    made: Any = module
    act = made.act_fn
    return type(act).__name__ in ("SiLUActivation", "SiLU") and type(module).__name__ in KNOWN


KNOWN = ("LlamaMLP", "Qwen2MLP", "Qwen3MLP", "MistralMLP")
"""Units whose forward is just this."""
