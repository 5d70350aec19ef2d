"""What the operator can say of vLLM: what is loaded, and how it is spread over devices.

Fields that are None are left to vLLM. `extra` takes every other argument of vLLM by its own name, so that a new release
needs no change here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from reason_engine.engines.vllm.release import Release


class VllmConfig(BaseModel, extra="forbid", frozen=True):
    """The settings under `vllm`, and what the others say of the model.

    `mode`: `async` runs the model in processes of its own (AsyncLLM, the way to serve), `inprocess` steps it in a
    thread of this one (small CPU hosts, tests); `auto` takes `async` where an accelerator is present. `max_loras`
    adapters may be used in one step, `max_adapters` may be loaded. `speculative_config` and `reasoning_parser` are
    vLLM's; reasoning is split by our own parser all the same, so that engines agree.
    """

    model: str
    name: str | None = None
    mode: Literal["auto", "async", "inprocess"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: int | None = Field(None, ge=16)
    seed: int = 0

    tensor_parallel_size: int = Field(1, ge=1)
    pipeline_parallel_size: int = Field(1, ge=1)
    data_parallel_size: int = Field(1, ge=1)
    data_parallel_size_local: int | None = None
    data_parallel_backend: Literal["mp", "ray"] | None = None
    data_parallel_rpc_port: int | None = None
    decode_context_parallel_size: int | None = None
    enable_expert_parallel: bool | None = None
    distributed_executor_backend: Literal["mp", "ray", "uni", "external_launcher"] | None = None
    nnodes: int | None = None
    node_rank: int | None = None
    master_addr: str | None = None
    master_port: int | None = None

    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)
    kv_cache_memory_bytes: int | None = Field(None, gt=0)
    kv_cache_dtype: str | None = None
    block_size: int | None = None
    max_num_seqs: int | None = Field(None, ge=1)
    max_num_batched_tokens: int | None = Field(None, ge=1)
    enable_prefix_caching: bool = True
    enforce_eager: bool | None = None
    quantization: str | None = None
    max_logprobs: int = Field(20, ge=0)

    enable_lora: bool = False
    max_loras: int = Field(4, ge=1)
    max_lora_rank: int = Field(64, ge=1)
    max_adapters: int = Field(16, ge=1)

    speculative_config: Mapping[str, Any] | None = None
    reasoning_parser: str | None = None
    extra: Mapping[str, Any] = Field(default_factory=dict[str, Any])


def runs_inprocess(config: VllmConfig, release: Release) -> bool:
    """Whether this configuration steps the model in this process."""
    if config.mode != "auto":
        return config.mode == "inprocess"
    spread = config.tensor_parallel_size * config.pipeline_parallel_size * config.data_parallel_size
    return release.cpu and spread == 1
