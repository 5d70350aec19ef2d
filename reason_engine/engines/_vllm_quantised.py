"""Quantised matrices in vLLM's CPU build on processors that its kernels are not made for.

Without VNNI the 8-bit product sums pairs of bytes in 16 bits and saturates: errors of a tenth and more, silently.
Without AVX-512 the 4-bit product is missing, and the first token ends the engine. Both are then multiplied as the
embedded engine multiplies them, with the same rounding of activations.
"""

from __future__ import annotations

from typing import Any

from reason_engine.engines._vllm_args import vllm_module

KERNELS = "model_executor.kernels.linear."


def replace_products() -> bool:
    """Replace what this processor lacks, in this process; whether the 4-bit product, which then takes float32 as well,
    is replaced. Must run before the engine is built; again: no effect.

    Raises ImportError or AttributeError where this vLLM has other kernels: then it has to be checked whether they need
    it.
    """
    import torch

    if not torch.cpu._is_vnni_supported():
        _replace_int8(vllm_module(KERNELS + "scaled_mm.cpu").CPUInt8ScaledMMLinearKernel)
    if torch.cpu._is_avx512_supported():
        return False
    _replace_int4(vllm_module(KERNELS + "mixed_precision.cpu").CPUWNA16LinearKernel)
    for module, name in (("auto_gptq", "AutoGPTQConfig"), ("auto_awq", "AutoAWQConfig")):
        config = getattr(vllm_module(f"model_executor.layers.quantization.{module}"), name)
        config.get_supported_act_dtypes = classmethod(_any_precision)
    return True


def _any_precision(_: Any) -> list[Any]:
    import torch

    return [torch.half, torch.bfloat16, torch.float32]


def _replace_int8(kernel: Any) -> None:
    from reason_engine.engines.embedded.quantised import Int8

    plain, multiply = kernel.process_weights_after_loading, kernel.apply_weights
    if plain.__module__ == __name__:
        return

    def load(self: Any, layer: Any) -> None:
        name, scale_name = self.layer_param_names[:2]
        weight_OI, scale = getattr(layer, name), getattr(layer, scale_name)
        symmetric = self.config.input_symmetric and not self.config.is_static_input_scheme
        if not symmetric or scale.numel() != weight_OI.shape[0]:
            plain(self, layer)
            return
        layer.product = Int8(weight_OI.data, scale.data.flatten().float()).product
        setattr(layer, name, None)

    def apply(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        if "product" not in vars(layer):
            return multiply(self, layer, x, bias)
        return _applied(layer.product, x, bias)

    _put(kernel, load, apply)


def _replace_int4(kernel: Any) -> None:
    import torch

    from reason_engine.engines.embedded.quantised import Codes, pack
    from reason_engine.engines.embedded.quantised_files import eight_codes

    if kernel.apply_weights.__module__ == __name__:
        return

    def load(self: Any, layer: Any) -> None:
        packed, scale, zero = self._get_weight_params(layer)
        code_OI = eight_codes((packed.t() if packed.input_dim == 0 else packed).data.contiguous())
        scale_OG = (scale if scale.output_dim == 0 else scale.t()).data.float().contiguous()
        if self.config.zero_points:
            zero_OG = eight_codes((zero.t() if zero.output_dim == 0 else zero).data.contiguous()).t()
        else:
            zero_OG = torch.full_like(scale_OG, 8)
        codes = Codes(code_OI.to(torch.uint8), scale_OG, -zero_OG.float() * scale_OG)
        layer.product = pack([codes], torch.device("cpu")).product
        setattr(layer, self.w_q_name, None)

    def apply(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        return _applied(layer.product, x, bias)

    _put(kernel, load, apply)


def _put(kernel: Any, load: Any, apply: Any) -> None:
    kernel.process_weights_after_loading, kernel.apply_weights = load, apply


def _applied(product: Any, x: Any, bias: Any) -> Any:
    rows_NI = x.reshape(-1, x.shape[-1])
    out_NO = product(rows_NI)
    if bias is not None:
        out_NO = out_NO + bias
    return out_NO.reshape(*x.shape[:-1], -1)
