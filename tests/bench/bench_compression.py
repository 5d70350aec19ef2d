"""What quantised weights take in memory and how fast they are, against the same model in full.

    python -m tests.bench.bench_compression [--parts memory,speed] [--layers 48] [--pairs 5] [--tokens 48] [--threads 1]

A random Qwen3 with tied embeddings, 12.6M parameters a layer and 8.4M of embedding: arithmetic, not words. Memory is
the unique set size of a process that holds the model ready to serve, before and after the weights are read, in fp32.
Speed is `reason compress`'s own measurement: alternating pairs of greedy runs, the engine's default precision.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path

from reason_engine.compression.compare import compare_speed
from reason_engine.compression.process import measure_in_process
from reason_engine.compression.run import prepare, run
from tests.bench._measure import machine
from tests.models import write_model
from tests.quantised import write_int4

SHAPE = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
    "head_dim": 64, "vocab_size": 8192, "tie_word_embeddings": True,
}  # fmt: skip


def made(folder: Path, layers: int) -> dict[str, Path]:
    """The model in bf16, in 8 bits and in 4 (groups of 128, to nearest: for speed the numbers do not matter)."""
    base = write_model(folder / "bf16", scale=1.0, dtype="bfloat16", num_hidden_layers=layers, **SHAPE)
    run("int8", prepare("int8", None, ["report=false"]), str(base), folder / "int8")
    return {"bf16": base, "int8": folder / "int8", "int4": write_int4(base, folder / "int4", group=128, symmetric=True)}


def size(folder: Path) -> int:
    """Bytes of the weights' files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def memory(models: dict[str, Path], threads: int) -> None:
    """One process a model, in fp32."""
    full = None
    for name, folder in models.items():
        found = measure_in_process(folder, threads=threads, dtype="float32")
        weights = found.loaded - found.empty
        full = full or (found.loaded, weights)
        print(
            f"{name}: file {size(folder) / size(models['bf16']):.3f} of bf16; process {found.loaded / 1e6:,.0f} MB "
            f"({found.loaded / full[0]:.3f} of fp32), weights {weights / 1e6:,.0f} MB ({weights / full[1]:.3f})"
        )


async def speed(models: dict[str, Path], pairs: int, threads: int, tokens: int) -> None:
    """Each against the model in full."""
    for name in ("int8", "int4"):
        for one in await compare_speed(models["bf16"], models[name], pairs, threads, lambda _: None, tokens):
            print(
                f"{name}, {one.rows} at once: {one.before:.1f} to {one.after:.1f} tokens/s, "
                f"{one.ratio:.2f} (95 % interval {one.low:.2f} to {one.high:.2f}), {pairs} pairs"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="memory,speed")
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(machine())
    folder = Path(tempfile.mkdtemp(prefix="reason-bench-"))
    try:
        models = made(folder, options.layers)
        print(f"{options.layers} layers, {size(models['bf16']) / 2e6:,.0f}M parameters")
        if "memory" in options.parts:
            memory(models, options.threads)
        if "speed" in options.parts:
            asyncio.run(speed(models, options.pairs, options.threads, options.tokens))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
