"""Rows of real data for `reason train`: from a folder of public sets, or from the Hub.

    python docs/recipes/gsm8k/rows.py answers    DATA OUT       # problems with worked solutions: sft, grpo
    python docs/recipes/gsm8k/rows.py preference DATA OUT       # pairs, the better answer first: reward, dpo, kto
    python docs/recipes/gsm8k/rows.py steps      DATA OUT       # solutions with a label a step: process-reward

DATA is a folder with `gsm8k/train.jsonl`, or `hub`, where `datasets` is installed: then GSM8K, UltraFeedback and
Math-Shepherd are read from there. Of a folder, pairs and labelled steps are made of the human solutions and the same
solutions with one mistake (`docs/recipes/steps/steps.py`). OUT gets `train.jsonl` and `held-out.jsonl`, which share no
problem. Test problems are never read.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

HUB = {
    "answers": ("openai/gsm8k", "main"),
    "preference": ("trl-lib/ultrafeedback_binarized", None),
    "steps": ("trl-lib/math_shepherd", None),
}
SPOIL = Path(__file__).parents[1] / "steps" / "steps.py"

Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(HUB))
    parser.add_argument("data", help="a folder with gsm8k/train.jsonl, or: hub")
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=int, default=200, help="problems set aside")
    parser.add_argument("--most", type=int, default=20_000, help="rows that are taken of the Hub's set")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.data == "hub":
        train, held = split([*islice(from_hub(given.kind), given.most)], given.held_out, given.seed)
    elif not (source := Path(given.data) / "gsm8k" / "train.jsonl").is_file():
        parser.error(f"{source}: not found")
    elif given.kind == "answers":
        train, held = split(read(source), given.held_out, given.seed)
    else:
        made = given.out / "spoiled"
        words = [str(SPOIL), str(source), str(made), "--held-out", str(given.held_out), "--seed", str(given.seed)]
        subprocess.run([sys.executable, *words], check=True)
        train, held = read(made / "train.jsonl"), read(made / "held-out.jsonl")
        if given.kind == "preference":
            train, held = [*pairs(train)], [*pairs(held)]
    for name, rows in (("train", train), ("held-out", held)):
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (given.out / f"{name}.jsonl").write_text(text, "utf-8")
    print(f"{given.out}: {len(train):,} rows to learn, {len(held):,} held out")


def from_hub(kind: str) -> Iterator[Row]:
    """In the columns that `reason train` reads."""
    from datasets import load_dataset

    name, config = HUB[kind]
    for row in load_dataset(name, config, split="train"):
        if kind == "preference":  # both are whole conversations
            yield {"prompt": row["chosen"][:-1], "chosen": row["chosen"][-1:], "rejected": row["rejected"][-1:]}
        elif kind == "steps":
            yield {"prompt": row["prompt"], "steps": row["completions"], "labels": row["labels"]}
        else:
            yield row


def pairs(rows: Sequence[Row]) -> Iterator[Row]:
    """The right solution of a problem against each of its wrong ones, written in the same way."""
    right: defaultdict[str, list[str]] = defaultdict(list)
    wrong: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        (right if all(row["labels"]) else wrong)[json.dumps(row["prompt"])].append("\n\n".join(row["steps"]))
    for prompt, spoiled in wrong.items():
        for at, rejected in enumerate(spoiled):
            if right[prompt]:
                chosen = right[prompt][at % len(right[prompt])]
                yield {"prompt": json.loads(prompt), "chosen": chosen, "rejected": rejected}


def split(rows: Sequence[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to learn, and so many held out."""
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    return [rows[at] for at in order[count:]], [rows[at] for at in order[:count]]


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()
