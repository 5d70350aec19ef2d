"""What training moved: samples of a model, and what its heads think of them.

    python docs/recipes/nano/measure.py sample MODEL SAMPLES.jsonl [--problems 1000] [--samples 16] [--units]
    python docs/recipes/nano/measure.py score MODEL SAMPLES.jsonl HEAD SCORES.jsonl
    python docs/recipes/nano/measure.py compare BEFORE.jsonl AFTER.jsonl
    python docs/recipes/nano/measure.py report SAMPLES.jsonl [SCORES.jsonl …]

Problems are the development problems of the task `word-problems`, five to eight steps, numbers of one and two digits,
or of `units` (of time, one factor): no training draws them. Samples are at --temperature 0.7. `compare` sets one sample
of each problem against one (exact McNemar test) and the means over all samples (bootstrap over problems); `report` sets
the best of n by each head against the vote, tells pair accuracy and the area under the curve of steps, over solutions
that are right, or whose first wrong line the problem's operations tell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judged import answer_of, labels_of

from reason_engine.data import STEPS
from reason_engine.engines.embedded.front import Embedded
from reason_engine.recipes.arithmetic import Equation
from reason_engine.recipes.units import UnitsTask as Units
from reason_engine.recipes.words import WordProblems, word_problem
from reason_engine.runtime.sampling import collect
from reason_engine.steps import step_ends
from reason_engine.types import GenerateRequest, Message, Sampling, ScoreRequest
from reason_engine.verifiers.reward_model import squashed

Rows = list[dict[str, Any]]
FOLDS = {"min": min, "product": math.prod, "last": lambda values: values[-1]}


async def sample(model: Path, questions: Sequence[str], count: int, temperature: float) -> list[list[str]]:
    """`count` solutions of each question by steps."""
    engine = Embedded(model, inline=True, threads=1, max_rows=256)
    await engine.start()
    turn = asyncio.Semaphore(max(16, 256 // count))
    found: list[list[str]] = [[] for _ in questions]

    async def one(place: int) -> None:
        async with turn:
            prompt = engine.render_chat([Message("user", f"{questions[place]}\n{STEPS}")])
            sampling = Sampling(max_tokens=200, temperature=temperature, seed=zlib.crc32(f"m/{place}".encode()))
            request = GenerateRequest(f"m-{place}", tuple(engine.tokenize(prompt)), count, sampling)
            found[place] = [path.text for path in await collect(engine.generate(request))]

    async with asyncio.TaskGroup() as group:
        for place in range(len(questions)):
            group.create_task(one(place))
    await engine.close()
    return found


async def score(model: Path, rows: Rows, head: str) -> list[list[list[float]]]:
    """Values of each sample of each row: one of an outcome head, one a step of a process head."""
    name, _, path = head.partition("=")
    engine = Embedded(model, inline=True, threads=1, rewards={name: path} if path else None)
    await engine.start()
    process = dict(engine.caps.rewards)[name] == "process"
    found: list[list[list[float]]] = []
    for row in rows:
        turns = (Message("user", f"{row['question']}\n{STEPS}"),)
        texts = tuple(dict.fromkeys(row["samples"]))
        ends = tuple(step_ends(text, "\n") for text in texts) if process else ()
        task = "token_reward" if process else "reward"
        request = ScoreRequest(f"s-{len(found)}", texts, task, name, turns, ends)
        scores = await engine.score(request)
        by_text = dict(zip(texts, scores.values, strict=True))
        found.append([[squashed(value) for value in by_text[text]] for text in row["samples"]])
    await engine.close()
    return found


def chain_of(words: WordProblems, place: int, seed: int) -> list[list[Any]]:
    """The operations of a development problem, drawn again."""
    rng = random.Random(f"dev-words-{seed}-{place}")
    steps, digits = rng.randint(*words.steps), rng.randint(*words.digits)
    return [[one.left, one.op, one.right, one.value] for one in word_problem(rng, steps, digits).chain]


def compare(before: Rows, after: Rows) -> dict[str, Any]:
    """One sample against one, and all against all."""
    first = [[right(row, 0) for row in rows] for rows in (before, after)]
    lost = sum(a and not b for a, b in zip(*first, strict=True))
    won = sum(b and not a for a, b in zip(*first, strict=True))
    means = [[mean([right(row, n) for n in range(len(row["samples"]))]) for row in rows] for rows in (before, after)]
    gains = [b - a for a, b in zip(*means, strict=True)]
    return {
        "problems": len(before),
        "one sample": [mean(one) for one in first],
        "all samples": [mean(one) for one in means],
        "gain of all": [mean(gains), *bootstrap(gains)],
        "won, lost, p": [won, lost, mcnemar(won, lost)],
        "vote": [mean([vote(row) for row in rows]) for rows in (before, after)],
        "any right": [mean([any(right(row, n) for n in range(len(row["samples"]))) for row in rows])
                      for rows in (before, after)],
    }  # fmt: skip


def report(rows: Rows, scored: dict[str, list[list[list[float]]]]) -> dict[str, Any]:
    """What choosing by each head reaches, and how well it tells right from wrong."""
    voted = [vote(row) for row in rows]
    found: dict[str, Any] = {"problems": len(rows), "vote": rated(voted)}
    for name, values in scored.items():
        steps = any(len(one) > 1 for row in values for one in row)
        for fold_name, fold in FOLDS.items() if steps else {"value": max}.items():
            means = [[fold(one) if one else 0.0 for one in row] for row in values]
            best = [right(row, max(range(len(m)), key=m.__getitem__)) for row, m in zip(rows, means, strict=True)]
            won = sum(b and not v for b, v in zip(best, voted, strict=True))
            lost = sum(v and not b for b, v in zip(best, voted, strict=True))
            found[f"{name} {fold_name}"] = {
                "best": rated(best),
                "against the vote": [won, lost, mcnemar(won, lost)],
                "pair accuracy": pairs(rows, means),
            }
            ballot = [weighted(row, m) for row, m in zip(rows, means, strict=True)]
            found[f"{name} {fold_name}"]["weighted vote"] = rated(ballot)
        if steps:
            found[f"{name} steps"] = {"auc": step_auc(rows, values)}
    return found


def right(row: dict[str, Any], place: int) -> bool:
    return answer_of(row["samples"][place]) == row["answer"]


def vote(row: dict[str, Any]) -> bool:
    answers = [answer for text in row["samples"] if (answer := answer_of(text)) is not None]
    return bool(answers) and Counter(answers).most_common(1)[0][0] == row["answer"]


def weighted(row: dict[str, Any], means: Sequence[float]) -> bool:
    """Whether the answer with the largest sum of scores is right."""
    sums: Counter[int] = Counter()
    for text, value in zip(row["samples"], means, strict=True):
        if (answer := answer_of(text)) is not None:
            sums[answer] += value  # pyright: ignore[reportArgumentType]
    return bool(sums) and max(sums, key=sums.__getitem__) == row["answer"]


def pairs(rows: Rows, means: Sequence[Sequence[float]]) -> list[float]:
    """Share of (right, wrong) pairs of a problem in which the right one has more, problems weighing alike; interval."""
    shares: list[float] = []
    for row, values in zip(rows, means, strict=True):
        good = [v for n, v in enumerate(values) if right(row, n)]
        bad = [v for n, v in enumerate(values) if not right(row, n)]
        if good and bad:
            shares.append(mean([(g > b) + (g == b) / 2 for g in good for b in bad]))
    return [mean(shares), *bootstrap(shares), len(shares)]


def step_auc(rows: Rows, values: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Area under the curve over all labelled steps; interval by bootstrap over problems."""
    found: list[list[tuple[float, float]]] = []
    for row, scores in zip(rows, values, strict=True):
        found.append([])
        for text, one in zip(row["samples"], scores, strict=True):
            labels = labels_of(text, row["answer"], [Equation(*one) for one in row["chain"]])
            if labels is not None and len(labels) == len(one):
                found[-1] += zip(one, labels, strict=True)
    rng, draws = random.Random(0), list[float]()
    for _ in range(200):
        draws.append(auc([pair for row in rng.choices(found, k=len(found)) for pair in row]))
    draws.sort()
    return [auc([pair for row in found for pair in row]), draws[5], draws[-6], sum(map(len, found))]


def auc(pairs: Sequence[tuple[float, float]]) -> float:
    """By ranks, ties shared."""
    ranks, place = 0.0, 0
    ordered = sorted(pairs)
    while place < len(ordered):
        end = place
        while end < len(ordered) and ordered[end][0] == ordered[place][0]:
            end += 1
        ranks += sum(label for _, label in ordered[place:end]) * (place + 1 + end) / 2
        place = end
    good = sum(label for _, label in pairs)
    return (ranks - good * (good + 1) / 2) / (good * (len(pairs) - good))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def rated(values: Sequence[bool]) -> list[float]:
    """A share with its interval (Wilson)."""
    n, p, z = len(values), mean(values), 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [p, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    rng = random.Random(0)
    draws = sorted(mean(rng.choices(values, k=len(values))) for _ in range(1000))
    return draws[24], draws[-25]


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p of two paired shares."""
    n = won + lost
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(won, lost) + 1)) / 2**n)


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def main() -> None:
    options = argparse.ArgumentParser(description="Measure a model and its heads.")
    options.add_argument("what", choices=("sample", "score", "compare", "report"))
    options.add_argument("paths", nargs="+")
    options.add_argument("--problems", type=int, default=1000)
    options.add_argument("--samples", type=int, default=16)
    options.add_argument("--temperature", type=float, default=0.7)
    options.add_argument("--seed", type=int, default=41)
    options.add_argument("--units", action="store_true", help="problems of the task units")
    given = options.parse_args()
    paths = given.paths
    if given.what == "sample":
        words, units = WordProblems(steps=(5, 8), digits=(1, 2)), Units(levels=(1, 1), kind="time")
        problems = (units if given.units else words).development(given.problems, given.seed)
        chains = [[] if given.units else chain_of(words, place, given.seed) for place in range(len(problems))]
        texts = asyncio.run(sample(Path(paths[0]), [p.question for p in problems], given.samples, given.temperature))
        rows = [{"question": p.question, "answer": int(p.reference or 0), "chain": chain, "samples": said}
                for p, chain, said in zip(problems, chains, texts, strict=True)]  # fmt: skip
        Path(paths[1]).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif given.what == "score":
        values = asyncio.run(score(Path(paths[0]), read(Path(paths[1])), paths[2]))
        Path(paths[3]).write_text("".join(json.dumps(row) + "\n" for row in values), "utf-8")
    elif given.what == "compare":
        print(json.dumps(compare(read(Path(paths[0])), read(Path(paths[1]))), indent=1))
    else:
        scored = {Path(path).stem: read(Path(path)) for path in paths[1:]}
        print(json.dumps(report(read(Path(paths[0])), scored), indent=1))  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
