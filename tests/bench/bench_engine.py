"""The embedded engine against transformers' `model.generate`, same weights, precision, prompt and batch.

    python -m tests.bench.bench_engine [--rounds 5] [--tokens 128] [--model DIR] [--large]

Rounds alternate engine and baseline; every round gives one ratio of tokens per second, and one of tokens per second of
processor time (all threads, front and worker), which a busy machine moves less. The baseline runs at the better of 1
and 2 threads, found first; the engine at its own choice, in its own process as when serving. An allocator to preload
is preloaded for both (`LD_PRELOAD=... python -m ...`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil

from reason_engine.engines.embedded.front import Embedded
from reason_engine.types import GenerateRequest, Sampling
from tests.bench._measure import machine, paired
from tests.models import write_model

PROMPT = "Use the numbers 4 5 6 10 and + - * / to make 24."
SMALL: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 1024,
}  # fmt: skip
LARGE: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 1024, "vocab_size": 32000,
}  # fmt: skip


class Baseline:
    """`model.generate`, sampling at the same temperature with the same number of new tokens."""

    def __init__(self, path: Path, dtype: str) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
        self.threads = 1

    def run(self, ids: list[int], n: int, tokens: int) -> float:
        """Tokens per second."""
        torch = self.torch
        torch.set_num_threads(self.threads)
        prompt = torch.tensor([ids])
        start = time.perf_counter()
        with torch.inference_mode():
            out = self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=0.7, top_k=0,
                num_return_sequences=n, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0,
            )  # fmt: skip
        assert out.shape == (n, len(ids) + tokens)
        return n * tokens / (time.perf_counter() - start)

    def choose_threads(self, ids: list[int], n: int, tokens: int) -> dict[int, float]:
        """The speed by threads; keeps the best."""
        speeds: dict[int, float] = {}
        for threads in sorted({1, min(2, os.cpu_count() or 1)}):
            self.threads = threads
            self.run(ids, n, 8)
            speeds[threads] = self.run(ids, n, tokens)
        self.threads = max(speeds, key=lambda t: speeds[t])
        return speeds


async def engine_speed(engine: Embedded, ids: list[int], n: int, tokens: int, name: str) -> float:
    """Tokens per second of one request with n samples, read as a stream."""
    sampling = Sampling(max_tokens=tokens, temperature=0.7, ignore_eos=True, seed=len(name))
    start, made = time.perf_counter(), 0
    async with aclosing(engine.generate(GenerateRequest(name, tuple(ids), n, sampling))) as chunks:
        async for chunk in chunks:
            made += chunk.token_count
    assert made == n * tokens
    return made / (time.perf_counter() - start)


async def compare(path: Path, rounds: int, tokens: int, label: str) -> list[dict[str, Any]]:
    """Paired ratios for one stream and for 16 samples."""
    engine = Embedded(path)
    await engine.start()
    chosen = engine.chosen
    assert chosen is not None
    ids = engine.tokenize(engine.render_chat([]) + PROMPT)
    baseline = Baseline(path, chosen.dtype)
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    rows: list[dict[str, Any]] = []
    for n in (1, 16):
        speeds = baseline.choose_threads(ids, n, max(16, tokens // 4))
        await engine_speed(engine, ids, n, 8, "warm")
        ours: list[float] = []
        theirs: list[float] = []
        work: list[float] = []
        for i in range(rounds):
            marks = [_cpu(processes)]
            theirs.append(baseline.run(ids, n, tokens))
            marks.append(_cpu(processes))
            ours.append(await engine_speed(engine, ids, n, tokens, f"{label}-{n}-{i}"))
            marks.append(_cpu(processes))
            work.append((marks[1] - marks[0]) / (marks[2] - marks[1]))
        ratio, cpu = paired([a / b for a, b in zip(ours, theirs, strict=True)]), paired(work)
        row = {
            "model": label, "dtype": chosen.dtype, "n": n, "ratio": ratio.median, "low": ratio.low, "high": ratio.high,
            "cpu_ratio": cpu.median, "cpu_low": cpu.low, "cpu_high": cpu.high,
            "engine_tokens_per_s": sorted(ours)[rounds // 2], "generate_tokens_per_s": sorted(theirs)[rounds // 2],
            "engine_threads": chosen.threads, "generate_threads": baseline.threads,
            "generate_by_threads": {str(k): round(v) for k, v in speeds.items()},
        }  # fmt: skip
        rows.append(row)
        print(
            f"{label}, {chosen.dtype}, n={n}: engine / generate {ratio}; by processor time {cpu}",
            file=sys.stderr,
            flush=True,
        )
        print(json.dumps(row), flush=True)
    await engine.close()
    return rows


def _cpu(processes: list[psutil.Process]) -> float:
    """Processor seconds that these have used."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; default: the bundled nano")
    parser.add_argument("--large", action="store_true", help="also a random model of 100M parameters, bf16 and fp32")
    args = parser.parse_args()
    print(machine(), file=sys.stderr)
    nano = Path(__file__).parents[2] / "reason_engine" / "models" / "nano"
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or (
            nano if (nano / "model.safetensors").is_file() else write_model(Path(folder) / "small", **SMALL)
        )
        asyncio.run(compare(model, args.rounds, args.tokens, model.name))
        if args.large:
            for dtype in ("bfloat16", "float32"):
                large = write_model(Path(folder) / f"large-{dtype}", dtype=dtype, **LARGE)
                asyncio.run(compare(large, args.rounds, args.tokens, large.name))


if __name__ == "__main__":
    main()
