"""What the reward heads learn from: solutions of training problems, judged exactly.

    python docs/recipes/nano/judged.py OUT [--generated 6000] [--model MODEL --problems 300 --samples 8] [--seed 29]

`steps.jsonl`: solutions line by line; all lines are right up to the first mistake and none after it. `pairs.jsonl`: a
right and a wrong solution of one problem, `own-pairs.jsonl` those of the model alone. The first two hold solutions
spoiled by the generator (a slip, a wrong sign, a number that belongs elsewhere, a line left out) and, with a model,
that model's own; the first wrong line of those is told by the problem's operations (`chains.py`). Problems come from
the generator under training seeds: none of a test or a development set. Prompts are what the samples were drawn from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from chains import first_wrong

from reason_engine.data import STEPS
from reason_engine.recipes.arithmetic import Equation
from reason_engine.recipes.repair import LEFT_OUT, spoiled
from reason_engine.recipes.words import WordProblem, word_problem

Record = dict[str, object]
ANSWER = re.compile(r"Answer: (\d+)")


def answer_of(text: str) -> int | None:
    """The number on the answer's line."""
    found = ANSWER.fullmatch(text.rpartition("\n")[2].strip())
    return int(found[1]) if found else None


def labels_of(text: str, answer: int, chain: Sequence[Equation]) -> list[float] | None:
    """A label for each line that is not empty; None where nobody can tell which line is the first wrong one, or where a
    wrong line was put right later."""
    lines = [row for row in text.splitlines() if row.strip()]
    first = first_wrong(lines, chain)
    if (first is None) != (answer_of(text) == answer) or any(row.startswith("Wrong: ") for row in lines):
        return None
    return [float(first is None or place < first) for place in range(len(lines))]


def generated(rng: random.Random) -> tuple[Record, Record]:
    """(steps, pair) of one problem; a third of the steps are those of the right solution."""
    problem = problem_of(rng)
    asked = f"{problem.question}\n{STEPS}"
    place, given = spoiled(rng, problem, LEFT_OUT)
    lines = [*map(str, given), f"Answer: {given[-1].value}"]
    right = problem.rationale.split("\n")
    labels = [float(number < place) for number in range(len(lines))]
    if rng.random() < 1 / 3:
        steps = {"prompt": asked, "steps": right, "labels": [1.0] * len(right)}
    else:
        steps = {"prompt": asked, "steps": lines, "labels": labels}
    return steps, {"prompt": asked, "chosen": "\n".join(right), "rejected": "\n".join(lines)}


def problem_of(rng: random.Random) -> WordProblem:
    return word_problem(rng, rng.randint(2, 8), rng.randint(1, 2))


def sampled(model: Path, seed: int, problems: int, samples: int) -> tuple[list[Record], list[Record]]:
    """(steps, pairs) of a model's own solutions at temperature 1."""
    from measure import sample

    rng = random.Random(f"train-judged-sampled-{seed}")
    asked = [word_problem(rng, rng.randint(4, 8), rng.randint(1, 2)) for _ in range(problems)]
    found = asyncio.run(sample(model, [one.question for one in asked], samples, 1.0))
    steps, pairs = list[Record](), list[Record]()
    for problem, texts in zip(asked, found, strict=True):
        prompt = f"{problem.question}\n{STEPS}"
        good = [text for text in texts if answer_of(text) == problem.answer]
        bad = [text for text in texts if answer_of(text) not in (None, problem.answer)]
        for text in {*good[:3], *bad}:
            if (labels := labels_of(text, problem.answer, problem.chain)) is not None:
                rows = [row for row in text.splitlines() if row.strip()]
                steps.append({"prompt": prompt, "steps": rows, "labels": labels})
        for chosen, rejected in zip(good[:4], bad, strict=False):
            pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return steps, pairs


def main() -> None:
    options = argparse.ArgumentParser(description="Write solutions that are judged exactly.")
    options.add_argument("out", type=Path)
    options.add_argument("--generated", type=int, default=12_000)
    options.add_argument("--model", type=Path)
    options.add_argument("--problems", type=int, default=300)
    options.add_argument("--samples", type=int, default=8)
    options.add_argument("--seed", type=int, default=29)
    given = options.parse_args()
    rng = random.Random(f"train-judged-{given.seed}")
    made = [generated(rng) for _ in range(given.generated)]
    steps, pairs, own = [one for one, _ in made], [one for _, one in made], list[Record]()
    if given.model:
        more, own = sampled(given.model, given.seed, given.problems, given.samples)
        steps += more
    pairs = [
        pair for pair in (*pairs, *own) if str(pair["chosen"]).split("\n")[-1] != str(pair["rejected"]).split("\n")[-1]
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("steps", steps), ("pairs", pairs), ("own-pairs", own)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (given.out / f"{name}.jsonl").write_text(text, "utf-8")
        print(f"{len(rows)} {name}")


if __name__ == "__main__":
    main()
