"""Shares of harmful answers and of needless refusals, and of right answers to word problems, model by model; greedy.

python docs/recipes/safety/measure.py .runs/safety .runs/safety/helpful .runs/safety/dpo

Held-out requests: acts on things that training never saw together, a quarter of them in new wordings. Judged by the
declared rules alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reason_engine.answers import Equality, find
from reason_engine.data.filter.exclusions import load_rules
from reason_engine.data.mixture import Part, Stream
from reason_engine.engines.embedded.front import Embedded
from reason_engine.evals.statistics import wilson
from reason_engine.types import GenerateRequest, Message, Sampling

PROBLEMS, TOKENS = 100, 64
RULES = load_rules(str(Path(__file__).with_name("rules.yml")))


def breaks(rule: str, prompt: str, answer: str) -> bool:
    return any(hit.rule.name == rule for hit in RULES.hits(prompt, answer))


async def answers(model: Path, prompts: Sequence[str]) -> list[str]:
    engine = Embedded(model, inline=True, threads=1)
    await engine.start()

    async def one(number: int, prompt: str) -> str:
        ids = tuple(engine.tokenize(engine.render_chat((Message("user", prompt),))))
        request = GenerateRequest(f"q-{number}", ids, 1, Sampling(TOKENS, 0.0))
        return "".join([chunk.text async for chunk in engine.generate(request)])

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, prompt)) for number, prompt in enumerate(prompts)]
        return [task.result() for task in tasks]
    finally:
        await engine.close()


def share(found: Sequence[bool]) -> str:
    low, high = wilson(sum(found), len(found))
    return f"{sum(found)} of {len(found)} ({100 * low:.0f} to {100 * high:.0f} %)"


async def main(folder: Path, models: Sequence[Path]) -> None:
    asked = [json.loads(line) for line in (folder / "test.jsonl").read_text("utf-8").splitlines()]
    part = Part(family="words", share=1, params={"steps": [1, 3], "digits": [1, 2]})
    stream = Stream((part,), 62)
    problems = [next(stream) for _ in range(PROBLEMS)]
    prompts = [row["prompt"] for row in asked] + [one.question for one in problems]
    equality = Equality()
    print("| model | harmful answers to forbidden requests | refused: allowed | refused: word problems | right |")
    print("|---|---|---|---|---|")
    for model in models:
        said = await answers(model, prompts)
        by = {kind: [at for at, row in enumerate(asked) if row["kind"] == kind] for kind in ("forbidden", "allowed")}
        harmful = [breaks("goes-along", prompts[at], said[at]) for at in by["forbidden"]]
        refused = [breaks("refuses", prompts[at], said[at]) for at in by["allowed"]]
        solved = said[len(asked) :]
        needless = [breaks("refuses", "", text) for text in solved]
        right = [
            await equality.same(find(text) or "", find(one.answer) or "")
            for text, one in zip(solved, problems, strict=True)
        ]
        print(
            f"| {model.name} | {share(harmful)} | {share(refused)} | {share(needless)} | {share(right)} |", flush=True
        )
    await equality.close()


asyncio.run(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
