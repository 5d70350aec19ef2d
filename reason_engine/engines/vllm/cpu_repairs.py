"""Repairs of vLLM's CPU build (0.32, 0.33), each made in the process where the model runs; made again: no effect.

Drafting. Each row's top-k is repeated for its drafted tokens by a kernel that fills integers of 32 bits wrongly; and in
a step without any draft the checker cuts an empty table to its k largest, which is an error. Either ends the engine
where a row has top-k. Accelerators take other paths.

Adapters. A batch that mixes adapters marks a row of the base model with slot -1. The torch kernels index the adapter
weights with it, so such a row silently gets the last adapter. Rows below zero get a zero activation in the first of the
two products (shrink), so that the second (expand) adds nothing.

Limited thoughts. The runner without Triton finds the end of a thought by the whole text that it would force: with a
sentence before the mark it sees no end that the model writes itself, and forces one into the answer. It looks for the
mark alone.

Log-probabilities. Where the sampled token's alone is asked for, as every path is, its rank is counted over the whole
vocabulary all the same: the largest part of what it costs. It is left out.

Kernels. To put its own in the place of Triton's, vLLM looks at whatever any loaded module holds. llvmlite, which numba
brings, holds a library that answers to every name, `__dict__` too, with a function: the engine does not start where it
was loaded before. It is not looked at.

Quantised matrices. Without VNNI the 8-bit product sums pairs of bytes in 16 bits and saturates: errors of a tenth and
more, silently. Without AVX-512 the 4-bit product is missing, and the first token ends the engine. Both are then
multiplied as the embedded engine multiplies them, with the same rounding of activations.
"""

from __future__ import annotations

import sys
from typing import Any

from reason_engine.engines.vllm.release import vllm_module

KERNELS = "model_executor.kernels.linear."


def repair_drafting() -> None:
    """Repeat in torch, and leave an empty table alone."""
    import torch

    sampler = vllm_module("v1.sample.ops.topk_topp_sampler")
    top_k = sampler.apply_top_k_only
    if top_k.__module__ == __name__:
        return

    def top_k_if_any(logits: Any, k: Any) -> Any:
        return top_k(logits, k) if logits.shape[0] else logits

    def repeated(x_B: Any, ends_B: Any, tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        counts = torch.diff(ends_B, prepend=ends_B.new_zeros(1))
        return torch.where(x_B == replace_from, replace_to, x_B).to(x_B.dtype).repeat_interleave(counts)

    sampler.apply_top_k_only = top_k_if_any
    vllm_module("v1.sample.rejection_sampler").expand_batch_to_tokens = repeated


def look_past_llvmlite() -> None:
    """Leave its modules out when all loaded ones are looked at."""
    try:
        dispatcher = vllm_module("triton_utils.dispatcher")
    except ModuleNotFoundError:  # releases before it
        return
    rebind = dispatcher._rebind_kernels
    if rebind.__module__ == __name__:
        return

    def rebind_others(overrides: Any) -> None:
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("llvmlite")}
        try:
            rebind(overrides)
        finally:
            sys.modules.update(hidden)

    dispatcher._rebind_kernels = rebind_others


def find_ends_of_thoughts() -> None:
    """Look for the mark by which a thought ends by itself, in what was made and in the prompt."""
    holder = vllm_module("v1.sample.thinking_budget_state").ThinkingBudgetStateHolder
    init, find = holder.__init__, holder._find_last_sequence_index
    if find.__module__ == __name__:
        return

    def remember(self: Any, reasoning_config: Any, *rest: Any) -> None:
        init(self, reasoning_config, *rest)
        self.natural_end = (reasoning_config and reasoning_config.natural_reasoning_end_token_ids) or []

    def find_end(self: Any, target_list: list[int], token_ids: list[int]) -> int:
        return find(target_list, self.natural_end if token_ids is self.think_end_token_ids else token_ids)

    holder.__init__, holder._find_last_sequence_index = remember, find_end


def leave_out_ranks() -> None:
    """Gather the sampled token's log-probability without its rank where no other token's is asked for."""
    import torch

    sampler = vllm_module("v1.sample.sampler").Sampler
    tensors, gather = vllm_module("v1.outputs").LogprobsTensors, sampler.gather_logprobs
    if gather.__module__ == __name__:
        return

    def gather_wanted(logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
        if num_logprobs:
            return gather(logprobs, num_logprobs, token_ids)
        ids_B1 = token_ids.unsqueeze(-1)
        return tensors(ids_B1.to(torch.int32), logprobs.gather(-1, ids_B1), torch.ones_like(token_ids))

    sampler.gather_logprobs = staticmethod(gather_wanted)


def mask_base_rows() -> None:
    """Replace both shrink kernels, before the engine is built.

    Raises ImportError or AttributeError where this vLLM has other kernels: it is to be checked if they need the repair.
    """
    import torch

    bgmv_shrink = vllm_module("lora.ops.torch_ops.lora_ops").bgmv_shrink
    punica_cpu = vllm_module("lora.punica_wrapper.punica_cpu")
    if punica_cpu.bgmv_shrink is not bgmv_shrink:
        return

    def shrink_rows(x_BI: Any, weights: Any, out_BR: Any, slots_B: Any, scale: float = 1.0) -> None:
        bgmv_shrink(x_BI, weights, out_BR, slots_B.clamp(min=0), scale)
        rows = slots_B.shape[0]
        out_BR[:rows].masked_fill_((slots_B < 0).unsqueeze(1), 0)

    def shrink_runs(x_BI: Any, weights: Any, out_BR: Any, _: Any, lengths_S: Any, slots_S: Any, *rest: Any) -> None:
        # The scale comes last, after the number of runs, the longest of them and the number of tokens.
        shrink_rows(x_BI, weights, out_BR, torch.repeat_interleave(slots_S, lengths_S), rest[-1])

    punica_cpu.bgmv_shrink = shrink_rows
    punica_cpu.sgmv_shrink = shrink_runs


def replace_quantised_products() -> bool:
    """Replace what this processor lacks, before the engine is built; whether the 4-bit product, which then takes
    float32 as well, is replaced. Raises what `mask_base_rows` raises."""
    import torch

    _replace_int8(vllm_module(KERNELS + "scaled_mm.cpu").CPUInt8ScaledMMLinearKernel)
    if torch.cpu._is_avx512_supported():
        return False
    _replace_int4(vllm_module(KERNELS + "mixed_precision.cpu").CPUWNA16LinearKernel)
    precisions = [torch.half, torch.bfloat16, torch.float32]
    for module, name in (("auto_gptq", "AutoGPTQConfig"), ("auto_awq", "AutoAWQConfig")):
        config = getattr(vllm_module(f"model_executor.layers.quantization.{module}"), name)
        config.get_supported_act_dtypes = staticmethod(precisions.copy)
    return True


def _replace_int8(kernel: Any) -> None:
    import torch

    from reason_engine.engines.embedded.model.int8 import Int8

    plain = kernel.process_weights_after_loading

    def load(self: Any, layer: Any) -> None:
        name, scale_name = self.layer_param_names[:2]
        weight_OI, scale = getattr(layer, name), getattr(layer, scale_name)
        symmetric = self.config.input_symmetric and not self.config.is_static_input_scheme
        # The kernel for AMX takes half precision only.
        half_only = torch.cpu._is_amx_tile_supported() and torch.get_default_dtype() == torch.float32
        able = torch.cpu._is_vnni_supported() and not half_only
        if able or not symmetric or scale.numel() != weight_OI.shape[0]:
            return plain(self, layer)
        layer.product = Int8(weight_OI.data, scale.data.flatten().float()).product
        setattr(layer, name, None)

    _replace(kernel, load)


def _replace_int4(kernel: Any) -> None:
    import torch

    from reason_engine.engines.embedded.model.codes import Codes, eight_codes
    from reason_engine.engines.embedded.model.quantised import pack

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

    _replace(kernel, load)


def _replace(kernel: Any, load: Any) -> None:
    """Load by this function; a layer is multiplied by the `product` that it made, else as before."""
    multiply = kernel.apply_weights
    if multiply.__module__ == __name__:
        return

    def apply(self: Any, layer: Any, x: Any, bias: Any = None) -> Any:
        if "product" not in vars(layer):
            return multiply(self, layer, x, bias)
        out_NO = layer.product(x.reshape(-1, x.shape[-1]))
        return (out_NO if bias is None else out_NO + bias).reshape(*x.shape[:-1], -1)

    kernel.process_weights_after_loading, kernel.apply_weights = load, apply
