"""A decoder of a checkpoint: in the precision and with the threads that suit model and machine.

`weights` are kept as they are stored (`full`), in 8-bit codes (`int8`), or in such codes on a CPU whose products of
them are exact, for models from LARGE on and where no `dtype` is named (`auto`). What is not in codes is multiplied in
`dtype`, and keys and values are kept in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.int8 import LEVELS, find_kernel
from reason_engine.engines.embedded.model.packed import can_pack, has_fast_bfloat16
from reason_engine.engines.embedded.model.sensitivity import LIMIT, Measured, build_measured
from reason_engine.engines.embedded.model.shape import Shape, read_shape
from reason_engine.engines.embedded.model.stored import stored_tensors
from reason_engine.engines.embedded.model.threads import ThreadChoice, counts_for
from reason_engine.engines.embedded.model.weights import Layout, Weights, build_weights
from reason_engine.errors import ModelLoadError

SMALL, LARGE = 20_000_000, 100_000_000
"""Parameters below which one thread and fp32 are the fastest on a CPU; those from which 8-bit codes are the default."""
MOST_KEPT = 0.5
"""Share of the numbers that may stay out of codes in a model of codes."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("auto", "int8", "full")


def load_decoder(
    folder: Path, *, dtype: str = "auto", device: str = "auto", threads: int = 0, weights: str = "full"
) -> Decoder:
    """Load a checkpoint; sets torch's number of threads. `auto` and 0 choose by model size and machine.

    Raises ModelLoadError.
    """
    shape, tensors = read_shape(folder), stored_tensors(folder)
    return make_decoder(shape, tensors, str(folder), dtype=dtype, device=device, threads=threads, weights=weights)


def make_decoder(
    shape: Shape,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    threads: int = 0,
    weights: str = "full",
) -> Decoder:
    """Of a checkpoint's tensors by name, which may be read when they are asked for; `source` names them in errors."""
    if weights not in WEIGHTS:
        raise ModelLoadError(f"weights {weights!r} is not among {', '.join(WEIGHTS)}")
    place, size = _device(device), _parameters(shape)
    torch.set_num_threads(1)  # products are tried, and timed
    precision = dtype_for(dtype, shape, size, place)
    layout, notes = _layout(weights, dtype, shape, size, precision, place)
    # One thread unless more are asked for: reading gains a tenth by two, and beside other work it loses by minutes.
    torch.set_num_threads(threads or 1)
    make = partial(_make, shape=shape, dtype=precision, device=place, demanded=weights == "int8")
    built, layout, measured, more = make(tensors, source, layout)
    decoder = Decoder(shape, built, precision, place, lambda new: make(new, "the new weights", layout)[0])
    decoder.precision, decoder.notes = _described(decoder, layout, measured), (*notes, *more)
    counts = counts_for(cores())
    if not threads and place.type == "cpu":
        torch.set_num_threads(1)
        if size >= SMALL and len(counts) > 1:
            decoder.threads = ThreadChoice(counts, torch.set_num_threads)
            decoder.threads.settle(partial(_step, decoder))
    return decoder


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def _layout(
    weights: str, dtype: str, shape: Shape, size: int, precision: torch.dtype, device: torch.device
) -> tuple[Layout, tuple[str, ...]]:
    """How matrices are kept, and what is to be told of it."""
    on_cpu = device.type == "cpu"
    chosen = weights == "auto" and on_cpu and size >= LARGE and dtype == "auto"
    packed = on_cpu and precision == torch.bfloat16 and can_pack()
    kernel = find_kernel() if on_cpu and (chosen or weights == "int8" or shape.scheme) else None
    if shape.scheme and weights == "full" and kernel and kernel.levels < LEVELS:
        kernel = None  # activations of 8 bits, as the file has it
    if kernel is None and chosen:
        why = "this machine's product of 8-bit codes failed its check: the weights stay as they are stored"
        return Layout(packed=packed), (why,)
    slow = on_cpu and kernel is None and weights == "int8"
    notes = ("this machine's product of 8-bit codes failed its check: a slower one is used",) if slow else ()
    return Layout(chosen or weights == "int8", kernel, packed), notes


def _make(
    tensors: Mapping[str, Tensor],
    source: str,
    layout: Layout,
    *,
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    demanded: bool,
) -> tuple[Weights, Layout, list[Measured], tuple[str, ...]]:
    """The weights, how they came to be kept, and what is to be told. Raises ModelLoadError where codes are demanded of
    a model that loses by them."""
    if not layout.int8 or shape.scheme:
        return build_weights(tensors, shape, dtype, device, source, layout), layout, [], ()
    built, measured = build_measured(tensors, shape, dtype, device, source, layout)
    kept = [one for one in measured if not one.codes]
    if sum(one.size for one in kept) <= MOST_KEPT * sum(one.size for one in measured):
        return built, layout, measured, tuple(_note(one, dtype) for one in kept)
    worst = max(measured, key=lambda one: one.error)
    why = (
        f"{len(kept)} of {len(measured)} matrices lose more than {LIMIT:.0%} by 8-bit codes, {worst.name} "
        f"{worst.error:.0%}"
    )
    if demanded:
        raise ModelLoadError(f"{source}: weights int8: {why}; use weights full")
    del built
    plain, note = Layout(packed=layout.packed), f"{why}: the weights stay as they are stored"
    return build_weights(tensors, shape, dtype, device, source, plain), plain, [], (note,)


def _note(one: Measured, dtype: torch.dtype) -> str:
    return f"{one.name} stays in {str(dtype).removeprefix('torch.')}: 8-bit codes change its product by {one.error:.0%}"


def _described(decoder: Decoder, layout: Layout, measured: list[Measured]) -> str:
    """What the weights are multiplied in, in a few words."""
    plain = decoder.precision
    if decoder.shape.scheme:
        codes = "int8" if decoder.shape.scheme == "w8a8" else "int4 and int8" if layout.int8 else "int4"
        return f"{codes} and {plain}"
    if not layout.int8:
        return plain
    kept = sum(not one.codes for one in measured)
    return f"int8, {kept} of {len(measured)} matrices {plain}" if kept else "int8"


def _step(decoder: Decoder) -> None:
    """A decode step of one token but for its attention."""
    with torch.inference_mode():
        one = torch.zeros(1, dtype=torch.long)
        decoder.logits(decoder.forward(one, one, lambda layer, q_NQD, kv_N2KD: q_NQD.flatten(1), 1))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(f"device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def dtype_for(name: str, shape: Shape, size: int, device: torch.device) -> torch.dtype:
    """Of what is not in codes. Raises ModelLoadError for an unknown name."""
    if name != "auto":
        if name not in DTYPES:
            raise ModelLoadError(f"dtype {name!r} is not among auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    stored = DTYPES.get(shape.dtype, torch.float32)
    if device.type != "cpu":
        return stored
    half = stored != torch.float32 and size >= SMALL
    return torch.bfloat16 if half and has_fast_bfloat16() and torch.backends.mkldnn.is_available() else torch.float32


def _parameters(shape: Shape) -> int:
    """About: all but the embedding's second copy and the small vectors."""
    return shape.vocab * shape.hidden + 12 * shape.layers * shape.hidden**2
