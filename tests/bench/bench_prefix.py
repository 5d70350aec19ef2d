"""What a long prompt and many paths cost the embedded engine, as ratios of tokens a second within one run.

    python -m tests.bench.bench_prefix [--model DIR] [--dtype bfloat16] [--rounds 5] [--tokens 64] [--quick]

Without a model: random weights in the shape of Qwen2.5-0.5B (`--quick`: four of its layers and a small vocabulary,
where attention weighs about as much and no head hides it). Prompts are random tokens and are read before the clock
starts. `long`: 16 paths over 1,000 prompt tokens against 16 over 100 (bar 0.85). `wide`: 64 paths against 16, over 100
(bar 1.3). `ragged`: 15 short paths beside one of 2,000 tokens against 16 short ones. `memory`: bytes that a path more
takes over a prompt of 1,000, in cells, against those of its own tokens. Speeds are by this thread's own processor time
with `--threads 1`, else by the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench._measure import machine, paired
from tests.models import write_model

SHAPE: dict[str, Any] = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 8192, "vocab_size": 151_936,
    "tie_word_embeddings": True,
}  # fmt: skip
QUICK: dict[str, Any] = {**SHAPE, "num_hidden_layers": 4, "vocab_size": 2048}


class Runner:
    """A scheduler without its worker: what a step costs, and nothing else."""

    def __init__(self, folder: Path, dtype: str, threads: int, weights: str = "full") -> None:
        from reason_engine.engines.chat import ChatFormat
        from reason_engine.engines.embedded.messages import OutputBuffer, WorkerConfig
        from reason_engine.engines.embedded.model.loading import load_decoder
        from reason_engine.engines.embedded.scheduler import Scheduler
        from reason_engine.engines.text import Vocabulary

        chat = ChatFormat.load(folder)
        decoder = load_decoder(folder, dtype=dtype, threads=threads, weights=weights)
        buffer = OutputBuffer(lambda _: None, 1.0)
        config = WorkerConfig(str(folder), dtype=dtype, threads=threads)
        self.scheduler = Scheduler(decoder, Vocabulary(chat.tokenizer), chat.eos_ids, buffer, config)
        self.precision = decoder.precision
        self.dtype = str(decoder.dtype).removeprefix("torch.")
        self.clock: Callable[[], float] = time.thread_time if threads == 1 else time.perf_counter
        self._names = 0
        self._random = random.Random(0)

    def prompt(self, length: int) -> tuple[int, ...]:
        """Random tokens."""
        return tuple(self._random.randrange(100, 2000) for _ in range(length))

    def speed(self, groups: Sequence[tuple[tuple[int, ...], int]], tokens: int) -> float:
        """Tokens a second of requests, each a prompt and a number of paths, from when all of them are running."""
        self.start(groups, tokens)
        output = self.scheduler.output
        begun, made = self.clock(), output.generated
        while self.scheduler.busy:
            self.scheduler.step()
        return (output.generated - made) / (self.clock() - begun)

    def start(self, groups: Sequence[tuple[tuple[int, ...], int]], tokens: int) -> None:
        """Begin, and go on until every prompt was read."""
        from reason_engine.engines.embedded.messages import Generate
        from reason_engine.types import Sampling

        for prompt, n in groups:
            sampling = Sampling(max_tokens=tokens, temperature=0.7, ignore_eos=True, seed=1000 * self._names)
            self._names += 1
            self.scheduler.start(Generate(f"r{self._names}", prompt, n, sampling))
        while len(self.scheduler.batch.samples) < sum(n for _, n in groups):
            self.scheduler.step()

    def end(self) -> None:
        """Abort all that runs."""
        for number in range(self._names + 1):
            self.scheduler.abort(f"r{number}")

    def cells_of_one_more(self, prompt: tuple[int, ...], tokens: int) -> float:
        """Cells that a path more takes at its end, between 8 and 16 paths of one prompt."""
        used: list[int] = []
        for n in (8, 16):
            self.start([(prompt, n)], tokens)
            for _ in range(tokens - 4):
                self.scheduler.step()
            batch = self.scheduler.batch
            batch.trim()
            used.append(batch.store.nbytes + batch.shared.nbytes)
            self.end()
        return (used[1] - used[0]) / 8 / self.scheduler.batch.store.cell_bytes


def measure(runner: Runner, rounds: int, tokens: int) -> dict[str, Any]:
    """All ratios, taken in turns."""
    short, long, longest = runner.prompt(100), runner.prompt(1000), runner.prompt(2000)
    cases = {
        "16 over 100": [(short, 16)],
        "16 over 1000": [(long, 16)],
        "64 over 100": [(short, 64)],
        "1 over 100": [(short, 1)],
        "15 short and one of 2000": [(short, 15), (longest, 1)],
    }  # fmt: skip
    speeds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        names = list(cases) if turn % 2 else list(cases)[::-1]
        for name in names:
            speed = runner.speed(cases[name], 8 if turn == 0 else tokens)
            if turn:
                speeds[name].append(speed)
    against = {
        "long": ("16 over 1000", "16 over 100"),
        "wide": ("64 over 100", "16 over 100"),
        "ragged": ("15 short and one of 2000", "16 over 100"),
        "batched": ("16 over 100", "1 over 100"),
    }
    row: dict[str, Any] = {"dtype": runner.dtype, "tokens": tokens}
    for name, (one, other) in against.items():
        ratio = paired([a / b for a, b in zip(speeds[one], speeds[other], strict=True)])
        row |= {name: ratio.median, f"{name}_low": ratio.low, f"{name}_high": ratio.high}
        print(f"{name}: {one} against {other}: {ratio}", file=sys.stderr)
    row |= {f"{name} tok/s": round(statistics.median(values), 1) for name, values in speeds.items()}
    row["memory"] = runner.cells_of_one_more(long, tokens)
    print(f"memory: {row['memory']:g} cells for one path more of {tokens} tokens", file=sys.stderr)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; default: random weights")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="a smaller random model")
    args = parser.parse_args()
    print(machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or write_model(
            Path(folder) / "random", "qwen2", dtype=args.dtype, scale=1.0, **(QUICK if args.quick else SHAPE)
        )
        import torch

        with torch.inference_mode():
            print(json.dumps(measure(Runner(model, args.dtype, args.threads), args.rounds, args.tokens)))


if __name__ == "__main__":
    main()
