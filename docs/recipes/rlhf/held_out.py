"""The reward of models on problems that training never draws, one sample each at temperature 1, problem by problem.

python docs/recipes/rlhf/held_out.py .runs/rlhf/sft .runs/rlhf/ppo .runs/rlhf/dpo --reward .runs/rlhf/reward -n 500

The first model is what the others are compared with (and, where `--reward` is given, what judges with it). Mean of the
paired differences with its 95 % interval (normal; the problems are the sample).
"""

from __future__ import annotations

import argparse
import math
from itertools import islice
from pathlib import Path
from statistics import fmean, stdev

import yaml

from reason_engine.data import STEPS
from reason_engine.data.mixture import Part, Stream
from reason_engine.recipes.units import UnitsTask as Units
from reason_engine.training.online.environment import TrainingProblem, training_problem
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.loop import Actor
from reason_engine.types import Problem

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("models", type=Path, nargs="+")
parser.add_argument("--reward", type=Path)
parser.add_argument("--mixture", help="YAML, as in a recipe; none: amounts of `units` that training never draws")
parser.add_argument("-n", type=int, default=500)
parser.add_argument("--max-tokens", type=int, default=48)
parser.add_argument("--seed", type=int, default=7)
given = parser.parse_args()

mixture = tuple(Part.model_validate(part) for part in yaml.safe_load(given.mixture or "[]"))
if mixture:
    tasks = [training_problem(one) for one in islice(Stream(mixture, given.seed), given.n)]
else:
    drawn = Units(levels=(1, 1), kind="time").problems(given.n, given.seed, None)
    tasks = [TrainingProblem(Problem(f"{one.question}\n{STEPS}", reference=one.reference)) for one in drawn]
rewards: list[dict[str, object]] = [{"verifier": "exact"}]
if given.reward:
    rewards.append({"verifier": "reward-model", "params": {"model": "rm"}})


def measured(model: Path) -> tuple[dict[str, list[float]], float]:
    """Values by reward, problem by problem, and the mean tokens of a sample."""
    found: dict[str, list[float]] = {}
    for reward in rewards:
        config = GrpoConfig.model_validate(
            {
                "out": "none", "model": model, "mixture": [{"family": "units", "share": 1}], "rewards": [reward],
                "steps": 1, "max_tokens": given.max_tokens, "threads": 1, "seed": given.seed,
                **({"judge": given.models[0], "reward_models": {"rm": str(given.reward)}} if given.reward else {}),
            }
        )  # fmt: skip
        with Actor(config) as actor:
            groups = actor.sample(tasks, 1, "held-out")
            found[str(reward["verifier"])] = [values[0] for values in actor.judge(groups, 0.0).outcome]
    return found, fmean(len(path.token_ids) for group in groups for path in group.paths)


print(f"{given.n} held-out problems, one sample each at temperature 1, seed {given.seed}\n")
print("| model | reward | mean | difference from the first | 95 % interval | tokens a sample |")
print("|---|---|---:|---:|---:|---:|")
first: dict[str, list[float]] = {}
for model in given.models:
    values, tokens = measured(model)
    first = first or values
    for name, row in values.items():
        apart = [a - b for a, b in zip(row, first[name], strict=True)]
        half = 1.96 * stdev(apart) / math.sqrt(len(apart))
        ends = "" if values is first else f"{fmean(apart) - half:+.3f} to {fmean(apart) + half:+.3f}"
        gain = "" if values is first else f"{fmean(apart):+.3f}"
        print(f"| {model.name} | {name} | {fmean(row):.3f} | {gain} | {ends} | {tokens:.1f} |", flush=True)
