"""The configuration as a release's EngineArgs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.vllm.configuration import VllmConfig
from reason_engine.engines.vllm.drafts import drafting
from reason_engine.engines.vllm.release import Release

CPU_BLOCK = 32
"""Tokens of a block of the CPU's cache: of the multiples of 32 that its attention takes the least, since only whole
blocks are shared. vLLM's own choice of 128 lets sixteen paths of a 100-token prompt share nothing."""

_MIB = 2**20
_SMALL, _TINY = 1024 * _MIB, 64 * _MIB
_HALF_ONLY = ("gptq", "awq")
"""Quantised models that vLLM's own kernels compute in half precision only."""
_WIDTHS = {"float32": 4, "float": 4}


def engine_arguments(
    config: VllmConfig, folder: Path, *, release: Release, replaced: bool = False, half: bool | None = None
) -> dict[str, Any]:
    """The EngineArgs of a release as a mapping. Only safetensors are loaded, so that no pickle ever is.

    On the CPU an explicit KV size and eager mode skip the warm-up, which is most of the start. Without instructions for
    bf16 (`half`; None: asks the processor) models under 1 GiB compute in float32, which is no slower there; with them
    only those do whose steps are too short to be bound by their weights, and so give the embedded engine's answers.
    `replaced`: the product of 4-bit matrices is ours, which takes float32 too.
    """
    files = ModelFolder(folder)
    own = {"model", "name", "mode", "extra", "max_loras", "max_lora_rank", "max_adapters", "speculative_config"}
    fields = config.model_dump(exclude=own, exclude_none=True) | {"model": str(folder)}
    fields |= {"load_format": "safetensors", "disable_log_stats": True, "use_tqdm_on_load": False}
    if config.enable_lora:
        fields |= {"max_loras": config.max_loras, "max_lora_rank": config.max_lora_rank}
        # all of them stay in memory, and one more while it replaces another: a file that vanished would end the engine
        fields["max_cpu_loras"] = max(config.max_adapters + 1, config.max_loras)
    fields |= drafting(config.speculative_config, release)
    if "speculative_config" in fields and release.number >= (0, 30):
        fields["per_request_spec_decode_metrics"] = "summary"
    # the grammar engine that the embedded engine uses too; free whitespace would let a weak model pad for ever
    fields["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
    if release.cpu:
        fields.setdefault("enforce_eager", True)
        fields.setdefault("block_size", CPU_BLOCK)
        # A prompt read in parts rewinds its row's generator, which the CPU's cannot: the whole engine would end.
        context = config.max_model_len or files.config.get("max_position_embeddings")
        fields["enable_chunked_prefill"] = False
        fields.setdefault("max_num_batched_tokens", max(2048, int(context or 0)))
        method = (files.quantization or {}).get("quant_method")
        most = _TINY if (computes_half() if half is None else half) else _SMALL
        small = sum(path.stat().st_size for path in folder.glob("*.safetensors")) < most
        if config.dtype == "auto" and small and (replaced or method not in _HALF_ONLY):
            fields["dtype"] = "float32"
        if "gpu_memory_utilization" not in fields:
            size = cache_bytes(folder, config.max_model_len, fields["dtype"])
            fields.setdefault("kv_cache_memory_bytes", size)
    return fields | dict(config.extra)


def computes_half() -> bool:
    """Whether this processor multiplies bf16 by instructions of its own (AMX or AVX512_BF16): elsewhere a product in
    float32 is faster."""
    import torch

    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def cache_bytes(folder: Path, context: int | None, dtype: str = "auto") -> int:
    """Bytes of a KV cache that holds one whole context twice, 256 MiB at least.

    2 (keys, values) x layers x KV heads x head size x bytes a number x tokens; 128 tokens are added for the blocks that
    are not full.
    """
    shape = ModelFolder(folder).config
    try:
        heads = int(shape["num_attention_heads"])
        size = int(shape.get("head_dim") or shape["hidden_size"] // heads)
        own = str(shape.get("dtype") or shape.get("torch_dtype"))
        width = _WIDTHS.get(own if dtype == "auto" else dtype, 2)
        layers, kv_heads = int(shape["num_hidden_layers"]), int(shape.get("num_key_value_heads") or heads)
        tokens = (context or int(shape["max_position_embeddings"])) + 128
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 1024 * _MIB  # a composite configuration; vLLM says if it is too small
    return max(256 * _MIB, 2 * (2 * layers * kv_heads * size * width) * tokens)
