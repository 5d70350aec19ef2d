"""Do vLLM and the embedded engine give the same greedy answers? Runs where both are installed (`.venv-vllm`).

    .venv-vllm/bin/python -m tests.bench.agreement [--model DIR] [--n 200] [--dtype float32]

Half of the prompts are word problems, half Game of 24; of each, half ask for the answer directly and half by steps. An
answer is what `answers.find` reads; the whole texts are compared as well, and how many of the word problems each engine
solves. Exit status 1 below --least.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from reason_engine.answers import find, normalise
from reason_engine.contracts import Engine
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import bundled_model
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.evals.statistics import wilson
from reason_engine.profile import read_profile
from reason_engine.recipes.puzzles import ask, game
from reason_engine.recipes.words import word_problem
from reason_engine.types import GenerateRequest, Message, Sampling

Precision = Literal["auto", "float32", "bfloat16"]


def questions(count: int, steps: str, seed: int = 20_000) -> list[tuple[str, int | None]]:
    """Fresh problems, the four kinds in turn; with the answer where there is only one."""
    rng = random.Random(seed)
    made: list[tuple[str, int | None]] = []
    for number in range(count):
        if number % 2:
            problem = word_problem(rng, rng.randint(1, 6))
            text, answer = problem.question, problem.answer
        else:
            text, answer = ask(rng, *game(rng)), None
        made.append((f"{text}\n{steps}" if number % 4 < 2 and steps else text, answer))
    return made


async def answers(engine: Engine, asked: list[str], max_tokens: int, width: int = 32) -> list[str]:
    """Greedy texts, `width` requests at a time."""
    gate = asyncio.Semaphore(width)

    async def one(number: int, question: str) -> str:
        sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
        request = GenerateRequest(f"agree-{number}", engine.render_chat([Message("user", question)]), 1, sampling)
        async with gate:
            return "".join([chunk.text async for chunk in engine.generate(request)])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(*item)) for item in enumerate(asked)]
    return [task.result() for task in tasks]


async def compare(model: Path, count: int, precision: Precision, max_tokens: int) -> float:
    """Share of equal answers; prints both shares and where the first texts part."""
    profile = read_profile(model)
    asked, right = zip(*questions(count, profile.ask.steps), strict=True)
    texts: list[list[str]] = []
    engines: list[Engine] = [
        Embedded(model, dtype=precision, inline=True),
        VllmEngine(VllmConfig(model=str(model), dtype=precision)),
    ]
    for engine in engines:
        await engine.start()
        texts.append(await answers(engine, list(asked), max_tokens))
        print(f"{engine.info.fingerprint}: {(await engine.health()).generated_tokens} tokens")
        await engine.close()
    pairs = list(zip(*texts, strict=True))
    read = [tuple(normalise(found) if (found := find(text)) else None for text in pair) for pair in pairs]
    same = sum(a == b for a, b in read)
    none = sum(a is None and b is None for a, b in read)
    print(f"answers equal: {same} of {count} ({none} of them without an answer on both)")
    print(f"texts equal:   {sum(a == b for a, b in pairs)} of {count}")
    for place, name in enumerate(("embedded", "vLLM")):
        judged = [pair[place] == normalise(str(one)) for pair, one in zip(read, right, strict=True) if one is not None]
        low, high = wilson(sum(judged), len(judged))
        print(f"word problems solved, {name}: {sum(judged)} of {len(judged)} ({low:.1%} to {high:.1%})")
    for number in [i for i, (a, b) in enumerate(pairs) if a != b][:3]:
        print(f"- {asked[number]!r}\n  embedded {pairs[number][0]!r}\n  vLLM     {pairs[number][1]!r}")
    return same / count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--least", type=float, default=0.98)
    options = parser.parse_args()
    if find_spec("vllm") is None:
        print("vLLM is not installed here: run it with .venv-vllm/bin/python (make test-vllm makes it)")
        return 0
    if options.model is None:
        print("no model: name one with --model")
        return 2
    share = asyncio.run(compare(options.model, options.n, options.dtype, options.max_tokens))
    return 0 if share >= options.least else 1


if __name__ == "__main__":
    raise SystemExit(main())
