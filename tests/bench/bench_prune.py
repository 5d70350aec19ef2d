"""Tokens a second of a pruned model over the model before, embedded engine, in alternating pairs, on a random model of
at least 100M parameters: `reason compress prune` by width, which leaves an ordinary dense model.

    python -m tests.bench.bench_prune [--rate 0.3] [--by width|depth] [--pairs 5] [--tokens 32] [--threads 1]

By the clock and by the processor's time, which other work on the machine hardly touches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path

from reason_engine.compression.run import prepare, run
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.types import GenerateRequest, Sampling
from tests.bench._measure import machine, paired
from tests.bench.bench_server import SIZE
from tests.models import write_model


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--by", default="width", choices=("width", "depth"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before, after = write_model(Path(folder) / "before", scale=1.0, **SIZE), Path(folder) / "after"
        settings = (
            f"rate={wish.rate}",
            f"by={wish.by}",
            f"threads={wish.threads}",
            *("rows=5", "length=128", "mixture=[{family: words, share: 1}]"),
            *("reconstruct=false", "report=false"),  # the weights are random: only their sizes matter here
        )
        run("prune", prepare("prune", None, settings), str(before), after)
        figures = json.loads((after / "manifest.json").read_text())["figures"]
        found = asyncio.run(measure(before, after, wish))
    print(json.dumps({"machine": machine(), **vars(wish), "pruned_of_all": figures["pruned"], **found}, indent=2))


async def measure(before: Path, after: Path, wish: argparse.Namespace) -> dict[str, str]:
    """Ratios after / before of tokens a second, one row and four rows at once."""
    engines = [Embedded(folder, inline=True, threads=wish.threads) for folder in (before, after)]
    vocabulary, found = read_shape(before).vocab, dict[str, str]()
    try:
        for engine in engines:
            await engine.start()
        for rows in (1, 4):
            for engine in engines:
                await spent(engine, vocabulary, rows, 4, -1)
            clock, processor = list[float](), list[float]()
            for pair in range(wish.pairs):
                order = engines if pair % 2 == 0 else engines[::-1]
                seen = {id(e): await spent(e, vocabulary, rows, wish.tokens, pair) for e in order}
                (first, first_cpu), (second, second_cpu) = seen[id(engines[0])], seen[id(engines[1])]
                clock.append(first / second)
                processor.append(first_cpu / second_cpu)
            found[f"{rows} at once, by the clock"] = str(paired(clock))
            found[f"{rows} at once, by processor time"] = str(paired(processor))
    finally:
        for engine in engines:
            await engine.close()
    return found


async def spent(engine: Embedded, vocabulary: int, rows: int, tokens: int, seed: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor for so many tokens of each row."""
    rng = random.Random(f"prune-{seed}")
    ids = tuple(rng.randrange(3, vocabulary) for _ in range(16))
    sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    began, worked = time.monotonic(), time.process_time()
    async for _ in engine.generate(GenerateRequest(f"prune-{rows}-{seed}", ids, rows, sampling)):
        pass
    return time.monotonic() - began, time.process_time() - worked


if __name__ == "__main__":
    main()
