"""Sixteen paths beside one: the time of strategies that draw 16 paths over that of one path of the same length, in
alternating pairs, on a random model of at least 100M parameters. Paths that are batched cost far less than 16 times.

    python -m tests.bench.bench_paths [--engine embedded|vllm] [--pairs 7] [--tokens 48] [--nano]

vLLM: in `.venv-vllm`. `--nano`: the bundled model instead, whose single path is too cheap to hide anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reason_engine.contracts import Engine
from reason_engine.engines.open import bundled_model, open_engine
from reason_engine.runtime.solve import solve
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.types import Problem, Sampling
from tests.bench._measure import machine, paired
from tests.bench.bench_server import SIZE
from tests.models import write_model

SIXTEEN: Mapping[str, Mapping[str, Any]] = {
    "self-consistency": {"n": 16},
    "best-of-n": {"n": 16},
    "confidence": {"n": 16, "warmup": 16},
}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="embedded", choices=("embedded", "vllm"))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--nano", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = bundled_model() if options.nano else write_model(Path(folder) / "model", **SIZE)
        settings = load_settings({"model": str(model), "engine": options.engine})
        ratios = asyncio.run(_measure(open_engine(settings, inline=True), options.pairs, options.tokens))
    told = {name: str(paired(found)) for name, found in ratios.items()}
    print(json.dumps({"machine": machine(), "engine": options.engine, "sixteen_over_one": told}, indent=2))


async def _measure(engine: Engine, pairs: int, tokens: int) -> dict[str, list[float]]:
    await engine.start()
    ratios: dict[str, list[float]] = {name: [] for name in SIXTEEN}
    try:
        for number in range(-1, pairs):
            for name, fields in SIXTEEN.items():
                runs = [("chain-of-thought", {}), (name, fields)]
                seconds: dict[str, float] = {}
                for kind, given in runs if number % 2 else runs[::-1]:
                    question = f"Question {number} for {name} by {kind}: tell me about it."
                    seconds[kind] = await _time(engine, kind, given, question, tokens)
                if number >= 0:  # the first pair warms up
                    ratios[name].append(seconds[name] / seconds["chain-of-thought"])
    finally:
        await engine.close()
    return ratios


async def _time(engine: Engine, name: str, fields: Mapping[str, Any], question: str, tokens: int) -> float:
    sampling = Sampling(max_tokens=tokens, ignore_eos=True)
    begun = time.perf_counter()
    outcome = await solve(strategies.get(name)(**fields), Problem(question), engine, sampling=sampling)
    spent = time.perf_counter() - begun
    paths = fields.get("n", 1)
    assert outcome.usage.completion == paths * tokens, (name, outcome.usage)
    return spent


if __name__ == "__main__":
    main()
