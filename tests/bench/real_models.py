"""Strategies on a real model and a public set, all on the same drawn paths, problem by problem, resumable.

    python -m tests.bench.real_models gsm8k --model DIR --data DIR --pool DIR --out DIR
        --strategies chain-of-thought:temperature=0,self-consistency:n=16 [--limit 200] [--every 2] [--max-tokens 544]
        [--engine vllm|embedded] [--rows 96] [--concurrency 6] [--profile '{"ask": {"steps": "…"}}']
        [--reward NAME=DIR] [--seconds S] [--allow-code]

`--limit` problems are drawn by seed 0, of which every `--every`-th is asked, so that a small set is part of a large
one. The pool keeps every path that was drawn (`recorded`): a vote, an adaptive vote, best-of-n and any-of-n read the
same ones. `any` is the share of problems for which at least one path of the vote holds the right answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Powers, Task
from reason_engine.engines.open import open_engine
from reason_engine.evals import tasks
from reason_engine.evals.report import markdown, summarise
from reason_engine.evals.run import Record, RecordFile, seed_of
from reason_engine.evals.spec import Spec, build, parse_specs
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Problem, Sampling
from reason_engine.verifiers.sandbox import Sandbox
from tests.bench._measure import machine
from tests.bench.recorded import Recorded


@dataclass(frozen=True)
class Bench:
    """One task on one engine."""

    name: str
    task: Task
    engine: Engine
    options: argparse.Namespace
    equality: Equality
    file: RecordFile
    oracle: Path

    async def run(self, specs: list[Spec], problems: list[Problem]) -> list[Record]:
        """Every strategy on every problem, those that are there already left out."""
        known, found = self.file.load(), list[Record]()
        for spec in specs:
            waiting = iter([p for p in problems if (self.name, spec.label, p.meta["index"], 0) not in known])

            async def work(spec: Spec = spec, waiting: object = waiting) -> None:
                for problem in waiting:  # type: ignore[attr-defined]
                    record = await self._record(spec, problem)
                    known[record.key] = record
                    self.file.append(record)
                    right = sum(r.correct for r in known.values() if r.strategy == spec.label)
                    done = sum(r.strategy == spec.label for r in known.values())
                    print(f"{spec.label}: {right} of {done} right", flush=True)

            async with asyncio.TaskGroup() as group:
                for _ in range(self.options.concurrency):
                    group.create_task(work())
            found += [known[self.name, spec.label, p.meta["index"], 0] for p in problems]
        return found

    async def _record(self, spec: Spec, problem: Problem) -> Record:
        options, strategy = self.options, build(strategies, spec)
        outcome = await solve(
            strategy, problem, self.engine, profile=Profile.model_validate_json(options.profile),
            limits=Limits(seconds=options.seconds), sampling=Sampling(max_tokens=options.max_tokens),
            seed=seed_of(0, problem.meta["index"]), equality=self.equality,
            powers=Powers(code=Sandbox() if options.allow_code else None),
        )  # fmt: skip
        answer = outcome.answer.value
        correct = await self.task.grade(problem, answer, outcome.content, self.equality)
        with self.oracle.open("a", encoding="utf-8") as out:
            row = [spec.label, problem.meta["index"], await self._any(problem, outcome), outcome.unread, outcome.cut]
            out.write(json.dumps(row) + "\n")
        used = outcome.usage
        record = Record(
            self.name, spec.label, problem.meta["index"], 0, problem.question, answer, correct, used.completion,
            used.prompt - used.cached, round(outcome.seconds, 2), outcome.stopped, outcome.samples,
            text=outcome.content,
        )  # fmt: skip
        return replace(record, unread=outcome.unread, cut=outcome.cut)

    async def _any(self, problem: Problem, outcome: Outcome) -> bool:
        """Whether a path of the vote holds the right answer."""
        given = {node.answer for node in outcome.trace.nodes if node.role == "path" and node.answer is not None}
        return any([await self.task.grade(problem, answer, answer, self.equality) for answer in given])


def main() -> None:
    """Run and print the report, with the share of problems that any path solves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task")
    for name in ("model", "data", "pool", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--strategies", required=True)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "embedded"))
    for name, usual in (("limit", 200), ("every", 1), ("max-tokens", 544), ("rows", 96), ("concurrency", 6)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--profile", default="{}")
    parser.add_argument("--reward", default="")
    parser.add_argument("--allow-code", action="store_true")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(options: argparse.Namespace) -> None:
    context, (spec,) = 2048, parse_specs([options.task], "task")
    rewards = dict([options.reward.split("=", 1)]) if options.reward else {}
    asked = {"model": str(options.model), "engine": options.engine, "context": context, "dtype": "bfloat16"}
    rows = {"vllm": {"max_num_seqs": options.rows}} if options.engine == "vllm" else {"max_rows": options.rows}
    settings = load_settings({**asked, **rows, "reward_models": rewards})
    engine = Recorded(options.model, options.pool, lambda: open_engine(settings, inline=True), context)
    options.out.mkdir(parents=True, exist_ok=True)
    task, equality = build(tasks, spec), Equality()
    problems = task.problems(options.limit, 0, options.data)[:: options.every]
    file, oracle = RecordFile(options.out / "answers.jsonl"), options.out / "paths.jsonl"
    bench = Bench(spec.label, task, engine, options, equality, file, oracle)
    try:
        records = await bench.run(parse_specs([options.strategies], "strategy"), problems)
    finally:
        await engine.close()
        await equality.close()
    command = "python -m tests.bench.real_models " + shlex.join(sys.argv[1:])
    report = markdown(summarise(records, {"commands": [command], "machine": machine(), "problems": len(problems)}))
    rows_of: dict[str, dict[int, list[float]]] = {}
    for label, index, *values in map(json.loads, oracle.read_text("utf-8").splitlines()):
        rows_of.setdefault(label, {})[index] = values
    asked_of = {problem.meta["index"] for problem in problems}
    lines = ["", "| strategy | any path right % |", "|---|---:|"]
    for label, rows_by_index in rows_of.items():
        kept = [values for index, values in rows_by_index.items() if index in asked_of]
        lines.append(f"| {label} | {100 * sum(values[0] for values in kept) / len(kept):.1f} |")
    (options.out / "report.md").write_text(report + "\n".join(lines) + "\n", "utf-8")
    print(report + "\n".join(lines))


if __name__ == "__main__":
    main()
