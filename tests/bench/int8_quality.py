"""How far 8-bit codes are from the weights as they are stored: KL divergence and agreement on the model's own text.

    python -m tests.bench.int8_quality --model DIR --text FILE [--places 6400] [--tokens 128] [--reference bfloat16]

The stored model writes answers to the questions of FILE (JSON lines with `question`, as GSM8K's test file, or plain
text, of which each paragraph is one) at temperature 0.7. Both models then read that text, and their distributions are
compared at each of its places: KL(stored ‖ codes) in nats, and whether the most likely token is the same. Intervals
are from 10,000 bootstrap resamples of whole texts. `--baseline` compares the stored model with itself in fp32 besides:
what half precision alone changes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reason_engine.engines.embedded.front import Embedded
from reason_engine.types import GenerateRequest, Message, Sampling
from tests.bench._measure import machine

ROWS = 50


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "text"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--places", type=int, default=6400)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--reference", default="auto", help="dtype of the stored model")
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    print(machine())
    texts = asyncio.run(_write(options))
    stored = _loaded(options, weights="full", dtype=options.reference)
    print(f"{options.model.name}: {sum(len(answer) for _, answer in texts)} places of {len(texts)} texts")
    _compare("int8", stored, _loaded(options, weights="int8"), texts)
    if options.baseline:
        _compare("float32", stored, _loaded(options, weights="full", dtype="float32"), texts)


def questions(path: Path) -> list[str]:
    """Of JSON lines, or the paragraphs of a text."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        return [str(json.loads(line)["question"]) for line in text.splitlines() if line.strip()]
    return [part.strip() for part in text.split("\n\n") if part.strip()]


Texts = Sequence[tuple[list[int], list[int]]]
"""Prompts and answers in tokens."""


async def _write(options: argparse.Namespace) -> Texts:
    engine = Embedded(
        options.model, inline=True, weights="full", dtype=options.reference, threads=options.threads, max_rows=ROWS
    )
    await engine.start()
    count = -(-options.places // options.tokens)
    asked = questions(options.text)[:count]
    prompts = [engine.tokenize(engine.render_chat([Message("user", question)])) for question in asked]
    answers: list[list[int]] = [[] for _ in prompts]

    async def one(number: int) -> None:
        sampling = Sampling(temperature=0.7, max_tokens=options.tokens, seed=number, ignore_eos=True)
        async for chunk in engine.generate(GenerateRequest(str(number), tuple(prompts[number]), 1, sampling)):
            answers[number] += chunk.token_ids

    async with asyncio.TaskGroup() as group:
        for number in range(len(prompts)):
            group.create_task(one(number))
    await engine.close()
    return list(zip(prompts, answers, strict=True))


def _loaded(options: argparse.Namespace, *, weights: str, dtype: str = "auto") -> Any:
    import torch

    from reason_engine.engines.embedded.model.loading import load_decoder

    with torch.inference_mode():
        made = load_decoder(options.model, weights=weights, dtype=dtype, threads=options.threads)
    print(f"{weights}: {made.precision}", *made.notes, sep="\n  ")
    return made


def _compare(name: str, stored: Any, other: Any, texts: Texts) -> None:
    kl, same = list[list[float]](), list[list[float]]()
    for prompt, answer in texts:
        divergence, alike = _distances(stored, other, prompt, answer)
        kl.append(divergence)
        same.append(alike)
    print(
        f"{name}: mean KL {_interval(kl, statistics.fmean)} nats, same most likely token {_interval(same, _percent)} %"
    )
    flat = sorted(value for one in kl for value in one)
    print(
        f"{name}: KL median {flat[len(flat) // 2]:.4f}, 99th percentile {flat[int(0.99 * len(flat))]:.4f}", flush=True
    )


def _distances(stored: Any, other: Any, prompt: list[int], answer: list[int]) -> tuple[list[float], list[float]]:
    """At each of the answer's tokens."""
    import torch

    from reason_engine.engines.embedded.prefill import advance, new_segment

    with torch.inference_mode():
        logps: list[Any] = []
        for decoder in (stored, other):
            ids = [*prompt, *answer[:-1]]
            ((_, hidden_NH),) = advance(decoder, [new_segment(decoder, ids, keep=len(answer))], len(ids), None)
            logps.append(decoder.logits(hidden_NH).log_softmax(-1))
        first, second = logps
        kl_N = (first.exp() * (first - second)).sum(-1)
        return kl_N.tolist(), (first.argmax(-1) == second.argmax(-1)).float().tolist()


def _percent(values: Sequence[float]) -> float:
    return 100 * statistics.fmean(values)


def _interval(texts: Sequence[Sequence[float]], of: Callable[[Sequence[float]], float]) -> str:
    """Over all places, with a 95 % interval over texts."""
    rng, means = random.Random(0), [of(one) for one in texts]
    drawn = sorted(statistics.fmean(rng.choices(means, k=len(means))) for _ in range(10_000))
    return f"{of([value for one in texts for value in one]):.4f} ({drawn[250]:.4f} to {drawn[9_749]:.4f})"


if __name__ == "__main__":
    main()
