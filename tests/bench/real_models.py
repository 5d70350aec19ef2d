"""`reason eval` on a real model, where all strategies read the same drawn paths; a run that was cut goes on.

    python -m tests.bench.real_models gsm8k --model DIR --data DIR --pool DIR --out DIR
        --strategies chain-of-thought:temperature=0,self-consistency:n=16 [--limit 100] [--max-tokens 544]
        [--engine vllm|embedded] [--weights auto|int8|full] [--rows 96] [--concurrency 6] [--profile JSON]
        [--reward NAME=DIR] [--seconds S] [--pass-at 1,16] [--allow-code] [--suffix TEXT]

The pool (`recorded`) keeps every path that was drawn, so a vote, an adaptive vote and best-of-n of one prompt choose
among the same ones, and pass@k of the vote's own paths is what one path, and any of them, would reach. `--profile`
stands for a `reason.json` beside the model. A path may have `--max-tokens`, of which 32 are kept for a forced answer.
`--suffix` ends every question, as a user would who names the form of the answer himself.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Powers
from reason_engine.engines.open import open_engine
from reason_engine.evals.command import RunFolder
from reason_engine.evals.records import Record
from reason_engine.evals.run import EvalPlan, evaluate
from reason_engine.evals.solvers import LocalSolver, Reply
from reason_engine.evals.spec import Spec, parse_specs
from reason_engine.evals.tables import markdown
from reason_engine.profile import Profile
from reason_engine.settings import Settings, load_settings
from reason_engine.types import Limits, Problem
from reason_engine.verifiers.code import Sandbox
from tests.bench._measure import machine
from tests.bench.recorded import Recorded

CONTEXT = 2048


def main() -> None:
    """Run and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    for name in ("model", "data", "pool", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--strategies", required=True)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "embedded"))
    parser.add_argument("--weights", default="auto", choices=("auto", "int8", "full"))
    for name, usual in (("limit", 100), ("max-tokens", 544), ("rows", 96), ("concurrency", 6)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--profile", default="{}")
    parser.add_argument("--reward", default="")
    parser.add_argument("--pass-at", default="1")
    parser.add_argument("--suffix", default="")
    parser.add_argument("--allow-code", action="store_true")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(options: argparse.Namespace) -> None:
    settings, sandbox = _settings(options), Sandbox() if options.allow_code else None

    def below() -> Engine:
        return open_engine(settings, inline=True)

    plan = EvalPlan(
        tuple(parse_specs([options.task], "task")), tuple(parse_specs([options.strategies], "strategy")), options.limit,
        data=options.data, concurrency=options.concurrency, texts=True, grade_paths=True,
        pass_at=tuple(map(int, options.pass_at.split(","))),
    )  # fmt: skip
    limits, profile = Limits(seconds=options.seconds), Profile.model_validate_json(options.profile)
    engine = Recorded(options.model, options.pool, below, CONTEXT, tuple(settings.reward_models))
    solver = _Suffixed(
        engine, profile, Equality(), limits, options.max_tokens, options.model.name, powers=Powers(code=sandbox),
        suffix=options.suffix,
    )  # fmt: skip
    setup = {"model": options.model.name, "machine": machine(), "max_tokens": options.max_tokens}
    folder = RunFolder(options.out, {key: setup[key] for key in ("model", "max_tokens")}, _command())
    folder.about["machine"] = setup["machine"]

    def tell(record: Record, done: int, total: int) -> None:
        print(f"{done}/{total} {record.strategy} {record.index} {record.correct}", flush=True)

    async with solver:
        print(markdown(folder.finish(await evaluate(plan, solver, folder.answers, tell, sandbox), plan.pass_at)))


@dataclass(frozen=True)
class _Suffixed(LocalSolver):
    suffix: str = ""

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
        asked = f"{problem.question}\n{self.suffix}" if self.suffix else problem.question
        return await super().answer(replace(problem, question=asked), spec, seed)


def _settings(options: argparse.Namespace) -> Settings:
    rewards = dict([options.reward.split("=", 1)]) if options.reward else {}
    asked = {"model": str(options.model), "engine": options.engine, "context": CONTEXT, "reward_models": rewards}
    if options.engine == "vllm":
        return load_settings({**asked, "dtype": "bfloat16", "vllm": {"max_num_seqs": options.rows}})
    return load_settings({**asked, "max_rows": options.rows, "weights": options.weights})


def _command() -> str:
    return "python -m tests.bench.real_models " + shlex.join(sys.argv[1:])


if __name__ == "__main__":
    main()
