"""Matrix products as the embedded engine makes them: fp32, bf16 plain and packed, 8-bit codes; one or a whole step.

    python -m tests.bench.bench_products [--model DIR] [--rows 1,4,16,64] [--threads 1] [--repeat 6]
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python -m tests.bench.bench_products

Without a model: one matrix of 9,728 by 896 (gate and up of Qwen2.5-0.5B), which stays in the cache. With one: a
decode step of the whole model but for its attention, streamed from memory, as it is stored and in codes. Milliseconds,
the best of `--repeat`, kinds alternating. `--thread-time` counts the processor's time of one thread instead of the
wall's, for machines where others compute. The instructions that oneDNN and torch are held to are named, and with how
many bits the product of codes passes its check.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench._measure import machine

OUTPUTS, INPUTS = 9728, 896


def main() -> None:
    """Measure and print the tables."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", default="1,4,16,64")
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--thread-time", action="store_true")
    options = parser.parse_args()
    rows = [int(part) for part in options.rows.split(",")]
    clock = time.thread_time if options.thread_time else time.perf_counter
    torch.set_num_threads(options.threads)
    print(machine())
    print(instructions())
    with torch.inference_mode():
        kinds = _steps(options) if options.model else _products()
        what = options.model.name if options.model else f"{OUTPUTS} x {INPUTS}"
        print(f"\n| {what}, {options.threads} threads, ms | {' | '.join(map(str, rows))} rows |")
        print("|---" * (len(rows) + 1) + "|")
        times = measured(kinds, rows, options.repeat, clock)
        for name in kinds:
            print(f"| {name} | {' | '.join(f'{1000 * times[name, count]:.2f}' for count in rows)} |")


def instructions() -> str:
    """What the products are held to, and what comes of it."""
    import torch

    from reason_engine.engines.embedded.model.int8 import find_kernel
    from reason_engine.engines.embedded.model.packed import can_pack

    kernel, held = find_kernel(), os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    cpu = torch.cpu
    flags = {"AMX": cpu._is_amx_tile_supported(), "AVX512_BF16": cpu._is_avx512_bf16_supported()}
    flags |= {"VNNI": cpu._is_vnni_supported(), "AVX512": cpu._is_avx512_supported()}
    has = ", ".join(name for name, there in flags.items() if there) or "none of AMX, AVX512, VNNI"
    codes = f"{kernel.levels.bit_length() + 1}-bit activations exact" if kernel else "no exact product of codes"
    torch_uses = torch.backends.cpu.get_cpu_capability()
    return f"processor has {has}; oneDNN held to {held}, torch uses {torch_uses}; {codes}; packed bf16: {can_pack()}"


def measured(
    kinds: Mapping[str, Callable[[int], object]], rows: Sequence[int], repeat: int, clock: Callable[[], float]
) -> dict[tuple[str, int], float]:
    """The least time of each kind at each number of rows, in turn."""
    least: dict[tuple[str, int], float] = {}
    for count in rows:
        for kind in kinds.values():
            kind(count)
        for _ in range(repeat):
            for name, kind in kinds.items():
                start = clock()
                kind(count)
                least[name, count] = min(least.get((name, count), float("inf")), clock() - start)
    return least


def _products() -> dict[str, Callable[[int], object]]:
    import torch

    from reason_engine.engines.embedded.model.int8 import Int8, find_kernel, quantise
    from reason_engine.engines.embedded.model.packed import Packed, can_pack

    generator = torch.Generator().manual_seed(0)
    weight_OI = torch.randn(OUTPUTS, INPUTS, generator=generator)
    x_NI = torch.randn(4096, INPUTS, generator=generator)
    half_NI, half_IO, whole_IO = x_NI.bfloat16(), weight_OI.bfloat16().t(), weight_OI.t().contiguous()
    made: dict[str, Callable[[int], object]] = {"fp32": lambda count: torch.mm(x_NI[:count], whole_IO)}
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        made["bf16 plain"] = lambda count: torch.mm(half_NI[:count], half_IO)
    if can_pack():
        packed = Packed(weight_OI)
        made["bf16 packed"] = lambda count: packed.product(half_NI[:count])
    codes = Int8(*quantise(weight_OI), find_kernel())
    made["int8, rounding of activations included"] = lambda count: codes.product(x_NI[:count])
    return made


def _steps(options: argparse.Namespace) -> dict[str, Callable[[int], object]]:
    from reason_engine.engines.embedded.model.decoder import Decoder
    from reason_engine.engines.embedded.model.loading import load_decoder
    from reason_engine.engines.embedded.model.shape import read_shape
    from reason_engine.engines.embedded.model.weights import load_weights

    full = load_decoder(options.model, threads=options.threads)
    shape = read_shape(options.model)
    plain = Decoder(shape, load_weights(options.model, shape, full.dtype, full.device), full.dtype, full.device)
    codes = load_decoder(options.model, threads=options.threads, weights="int8")
    named: dict[str, Any] = {f"{full.precision} plain": plain, f"{full.precision} as served": full}
    return {name: partial(_step, one) for name, one in (named | {codes.precision: codes}).items()}


def _step(decoder: Any, count: int) -> object:
    import torch

    tokens_N, places_N = torch.arange(count) + 100, torch.full((count,), 10)
    states = decoder.forward(tokens_N, places_N, lambda layer, q_NQD, kv_N2KD: q_NQD.flatten(1), 16)
    return decoder.logits(states)


if __name__ == "__main__":
    main()
