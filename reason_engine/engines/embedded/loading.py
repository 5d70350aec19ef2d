"""A checkpoint folder to a scheduler that runs it: device, precision and threads chosen by size and machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from reason_engine.engines.chat.template import ChatFormat
from reason_engine.engines.embedded.messages import Config, Ready
from reason_engine.engines.embedded.model import weights
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.shape import Shape, read_shape
from reason_engine.engines.embedded.rows import Outbox
from reason_engine.engines.embedded.scheduler import Scheduler
from reason_engine.engines.text import Vocabulary
from reason_engine.errors import ModelLoadError, RequestError

SMALL = 20_000_000
"""Parameters below which one thread and fp32 are the fastest on a CPU. Above, one core is left to the front: a thread
that waits for its turn on a full machine holds up all others at every operation."""


def build(config: Config, chat: ChatFormat, outbox: Outbox) -> tuple[Scheduler, Ready]:
    """Load the model. Raises ModelLoadError."""
    folder = Path(config.path)
    shape = read_shape(folder)
    device = _device(config.device)
    size = _parameters(shape)
    threads = config.threads or (1 if size < SMALL else max(1, len(os.sched_getaffinity(0)) - 1))
    torch.set_num_threads(threads)
    dtype = _dtype(config.dtype, shape, size, device)
    loaded = weights.load(folder, shape, dtype, device)
    decoder = Decoder(shape, loaded, dtype, device)
    scheduler = Scheduler(
        decoder,
        Vocabulary(chat.tokenizer),
        chat.eos_ids,
        outbox,
        context=config.context or shape.context,
        max_rows=config.max_rows,
        cache_bytes=config.cache_bytes or _cache_bytes(device),
        prefix_bytes=config.prefix_bytes or _cache_bytes(device) // 8,
        prefill_tokens=config.prefill_tokens if device.type == "cpu" else max(config.prefill_tokens, 4096),
        draft=config.draft,
    )
    return scheduler, Ready(threads, str(dtype).removeprefix("torch."), str(device))


def renew(scheduler: Scheduler, tensors: Mapping[str, Tensor]) -> None:
    """Go on with other weights; what was kept of the old ones' keys and values is forgotten. Nothing may run.

    Raises RequestError while adapters are loaded, which hold parts of the old weights, and ModelLoadError.
    """
    if scheduler.adapters.patch is not None:
        raise RequestError("unload the adapters first: they belong to the weights that are loaded")
    decoder = scheduler.decoder
    named = {name.removeprefix("model."): tensor.to(decoder.dtype) for name, tensor in tensors.items()}
    decoder.weights = weights.build(named, decoder.shape, decoder.dtype, decoder.device, "the new weights")
    scheduler.prefixes.clear()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def _dtype(name: str, shape: Shape, size: int, device: torch.device) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name != "auto":
        if name not in known:
            raise ModelLoadError(f"dtype {name!r} is not among auto, {', '.join(known)}")
        return known[name]
    stored = known.get(shape.dtype, torch.float32)
    if device.type != "cpu":
        return stored
    return torch.bfloat16 if stored != torch.float32 and size >= SMALL and _fast_bfloat16() else torch.float32


def _fast_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.mkldnn.is_available()


def _parameters(shape: Shape) -> int:
    """About: all but the embedding's second copy and the small vectors."""
    return shape.vocab * shape.hidden + 12 * shape.layers * shape.hidden**2


def _cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.6)
    return min(2**32, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4)
