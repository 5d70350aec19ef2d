"""Pairs of a model's own samples: a right one and a wrong one of a problem, for reward models, dpo and kto.

python docs/recipes/rlhf/pairs.py .runs/rlhf/sft .runs/rlhf/pairs.jsonl --seed 1
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import yaml

from reason_engine.data.mixture import Part, Stream
from reason_engine.training.online.environment import training_problem
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.loop import Actor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument(
    "--mixture",
    default="[{family: units, share: 1, params: {levels: [1, 1], kinds: [time]}}]",
    help="YAML, as in a recipe",
)
parser.add_argument("--prompts", type=int, default=2000)
parser.add_argument("--samples", type=int, default=6)
parser.add_argument("--each", type=int, default=1, help="most pairs of a problem")
parser.add_argument("--max-tokens", type=int, default=48)
parser.add_argument("--without", type=Path, help="rows whose prompts are left out: what is trained on")
parser.add_argument("--seed", type=int, default=1)
given = parser.parse_args()

parts = tuple(Part.model_validate(part) for part in yaml.safe_load(given.mixture))
tasks = [training_problem(one) for one in islice(Stream(parts, given.seed), given.prompts)]
config = GrpoConfig(
    out=given.out, model=given.model, mixture=parts, rewards=({"verifier": "exact"},), steps=1,  # pyright: ignore[reportArgumentType]
    samples=given.samples, max_tokens=given.max_tokens, threads=1, seed=given.seed,
)  # fmt: skip
with Actor(config) as actor:
    groups = actor.sample(tasks, given.samples, "pairs")
    judged = actor.judge(groups, 0.0).outcome
known: set[str] = set()
if given.without:
    known = {json.loads(line)["prompt"] for line in given.without.read_text("utf-8").splitlines()}
kept = 0
with given.out.open("w", encoding="utf-8") as file:
    for group, values in zip(groups, judged, strict=True):
        if group.task.problem.question in known:
            continue
        right = [path.text for path, value in zip(group.paths, values, strict=True) if value == 1]
        wrong = [path.text for path, value in zip(group.paths, values, strict=True) if value == 0]
        for chosen, rejected in islice(zip(right, wrong, strict=False), given.each):
            row = {"prompt": group.task.problem.question, "chosen": chosen, "rejected": rejected}
            file.write(json.dumps(row) + "\n")
            kept += 1
share = sum(map(sum, judged)) / (given.prompts * given.samples)
print(f"{kept} pairs from {given.prompts} problems, {given.samples} samples each; {share:.1%} of the samples are right")
