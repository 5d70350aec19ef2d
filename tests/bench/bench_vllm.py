"""Raw vLLM beside ours with the same engine arguments, in one run and in turns, on a CPU or a GPU.

    python -m tests.bench.bench_vllm --model DIR [--parts paths,drafts,vote,streams] [--rounds 7] [--tokens 128]
        [--prompt 128] [--paths 64] [--streams 32] [--vote-tokens 256] [--memory 0.25] [--vllm JSON]

`paths`: `n`, seeds, log-probabilities. `drafts`: each drafter beside none. `vote`: one of sixteen through our server,
and vLLM's `n` for the same prompt and seeds, counted. `streams`: `direct` on our server and on vLLM's own. `--memory`:
of a GPU's memory, what each of the up to three engines that are there at once may take. `--vllm`: more settings of
vLLM's, for all of them (`{"max_model_len": 4096}`). Without `--model` a random one of 100M parameters is made, whose
texts are noise and never end.

A line has both rates and the median of the paired ratios with its 95 % interval: of the time that a token takes, by the
clock on the wall and, where all of it works in one process, by that process's processor time; for streams, of the
figures themselves. Then the bar, and whether the median holds it; exit status 1 where one does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from reason_engine.engines.vllm.arguments import engine_arguments
from reason_engine.engines.vllm.configuration import VllmConfig, runs_inprocess
from reason_engine.engines.vllm.drafts import speculation
from reason_engine.engines.vllm.release import preload_environment, require_vllm
from tests.bench._measure import client, machine, paired
from tests.bench._vllm_arms import Arms, RecordingEngine, Spent
from tests.bench._vllm_servers import our_command, process, served, streams, vllm_command, vote
from tests.bench.bench_draft import LARGE
from tests.models import write_model

PARTS = ("paths", "drafts", "vote", "streams")
DRAFTS = ("none", "ngram", "sam")
LINE = "| {what} | {ours:.4g} | {base:.4g} | {ratio} | {cpu} | {bar} |"
missed: list[str] = []


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    for name, usual in (
        ("rounds", 7), ("tokens", 128), ("prompt", 128), ("paths", 64), ("streams", 32), ("vote-tokens", 256)
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--memory", type=float, default=0.25)
    parser.add_argument("--vllm", type=json.loads, default={})
    parser.add_argument("--child", choices=DRAFTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if find_spec("vllm") is None:
        print("vLLM is not installed here: run it where it is (.venv-vllm/bin/python; make test-vllm makes it)")
        return 0
    if options.child:
        asyncio.run(child(options))
        return 0
    with tempfile.TemporaryDirectory() as made:
        options.model = options.model or write_model(Path(made) / "model", dtype="float32", **LARGE)
        measure(options, Path(made))
    return 1 if missed else 0


def measure(options: argparse.Namespace, scratch: Path) -> None:
    """All parts, one after the other."""
    parts, release = options.parts.split(","), require_vllm()
    arguments = engine_arguments(configuration(options, "none"), options.model, release=release)
    print(f"{machine()}, vLLM {release.version}, {options.model.name}: {_said(arguments)}\n")
    print("| tokens a second (first token: seconds) | ours | raw | ratio | by processor time | bar |")
    print("|---|---|---|---|---|---|")
    if {"paths", "vote"} & set(parts):
        with ExitStack() as stack:
            engine = Child("none", options, stack)
            if "paths" in parts:
                compare_paths(engine, options)
            if "vote" in parts:
                pairs = [engine.ask({"vote": number}) for number in range(-1, options.rounds)][1:]
                tell(
                    "vote of 16 through our server / n = 16, counted",
                    *zip(*pairs, strict=True),
                    engine.inside,
                    most=1.02,
                )
    if "drafts" in parts:
        with ExitStack() as stack:
            compare_drafts({name: Child(name, options, stack) for name in DRAFTS}, options)
    if "streams" in parts:
        asyncio.run(compare_streams(options, arguments, scratch))


def compare_paths(engine: Child, options: argparse.Namespace) -> None:
    """One prompt: 16 paths on both sides; many without seeds, with them, with log-probabilities."""
    many = options.paths
    plain = f"raw {many} unseeded"
    arms = ["raw 16", "ours 16", plain, f"raw {many}"]
    arms += [f"{who} {many}{rest}" for rest in ("", " logprobs=0", " logprobs=5") for who in ("raw", "ours")]
    arms = list(dict.fromkeys(arms))
    rounds: dict[str, list[Spent]] = {arm: [] for arm in arms}
    for number in range(-1, options.rounds):
        first = number % len(arms)
        for arm in arms[first:] + arms[:first]:
            spent = engine.ask({"arm": arm, "number": number})[0]
            if number >= 0:
                rounds[arm].append(spent)
    inside = engine.inside
    tell("16 paths / raw n = 16", rounds["ours 16"], rounds["raw 16"], inside, most=1.02)
    tell(f"{many} seeded paths / raw, seeded", rounds[f"ours {many}"], rounds[f"raw {many}"], inside, most=1.02)
    tell(f"raw {many} seeded / raw without seeds", rounds[f"raw {many}"], rounds[plain], inside)
    for k in (0, 5):
        said = f"with log-probabilities of {k}"
        ours, raw = rounds[f"ours {many} logprobs={k}"], rounds[f"raw {many} logprobs={k}"]
        tell(f"{many} seeded paths {said} / raw, the same", ours, raw, inside, most=1.02)
        tell(
            f"{many} seeded paths {said} / raw without both", ours, rounds[plain], inside, most=None if k else 1 / 0.95
        )


def compare_drafts(engines: dict[str, Child], options: argparse.Namespace) -> None:
    """Each drafter beside none: greedy text that repeats its prompt, sampled text that does not."""
    for text in ("repeats", "fresh"):
        for paths in (1, 16):
            rounds: dict[str, list[Spent]] = {name: [] for name in engines}
            names = list(engines)
            for number in range(-1, options.rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    spent = engines[name].ask({"arm": f"{text} {paths}", "number": number})[0]
                    if number >= 0:
                        rounds[name].append(spent)
            for name in names[1:]:
                taken = sum(spent.accepted for spent in rounds[name]) / sum(spent.tokens for spent in rounds[name])
                what = f"{name}, text that {'repeats' if text == 'repeats' else 'does not repeat'}, {paths} paths"
                most = 1 / 0.97 if text == "fresh" else None
                tell(
                    f"{what} (accepted {taken:.0%}) / none",
                    rounds[name],
                    rounds["none"],
                    engines[name].inside,
                    most=most,
                )


async def compare_streams(options: argparse.Namespace, arguments: dict[str, Any], scratch: Path) -> None:
    """`direct` on our server, the same on vLLM's."""
    shared = settings_of(options)
    with (
        process(our_command(options.model, shared, scratch)) as ours,
        process(vllm_command(options.model, arguments)) as theirs,
    ):
        rounds: list[list[Any]] = [[], []]
        async with client(ours) as one, client(theirs) as other:
            bodies = [(one, {"reasoning": {"strategy": "direct"}}), (other, {})]
            for number in range(-1, options.rounds):
                for place in (0, 1) if number % 2 else (1, 0):
                    http, more = bodies[place]
                    made = await streams(http, number, options.streams, options.tokens, more)
                    if number >= 0:
                        rounds[place].append(made)
    ours, theirs = rounds
    rates = [one.rate for one in ours], [one.rate for one in theirs]
    firsts = [one.first for one in ours], [one.first for one in theirs]
    told(f"{options.streams} streams of direct / vLLM's server", *rates, least=0.97)
    told(f"first token of {options.streams} streams, median / vLLM's server", *firsts, most=1.1)


def tell(what: str, ours: Any, base: Any, inside: bool, *, most: float | None = None) -> None:
    """A line: the rates of both, and how often as long ours takes for a token (`most`: at most so often). `inside`: the
    model runs in the process whose time was taken, which then is what is judged: it knows no neighbours."""
    cost, cpu = [
        [(getattr(o, clock) / o.tokens) / (getattr(b, clock) / b.tokens) for o, b in zip(ours, base, strict=True)]
        for clock in ("seconds", "cpu")
    ]
    here, there = [median(spent.tokens / spent.seconds for spent in side) for side in (ours, base)]
    held = cpu if inside else cost
    _line(what, here, there, str(paired(cost)), str(paired(cpu)) if inside else "", _judged(what, held, most=most))


def told(what: str, ours: list[float], base: list[float], *, least: float = 0.0, most: float | None = None) -> None:
    """A line of plain figures."""
    ratios = [o / b for o, b in zip(ours, base, strict=True)]
    _line(what, median(ours), median(base), str(paired(ratios)), "", _judged(what, ratios, least=least, most=most))


def _line(what: str, ours: float, base: float, ratio: str, cpu: str, bar: str) -> None:
    print(LINE.format(what=what, ours=ours, base=base, ratio=ratio, cpu=cpu, bar=bar), flush=True)


def _judged(what: str, ratios: list[float], *, least: float = 0.0, most: float | None = None) -> str:
    if most is None and not least:
        return ""
    held = least <= median(ratios) <= (most or 1e9)
    if not held:
        missed.append(what)
    return f"{'≥' if least else '≤'} {least or most:.3g}: {'yes' if held else 'NO'}"


def configuration(options: argparse.Namespace, draft: str) -> VllmConfig:
    """What every engine of this run is started with, but for its drafts."""
    return VllmConfig(model=str(options.model), speculative_config=speculation(draft), **settings_of(options))


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings under `vllm`."""
    shared = {} if require_vllm().cpu else {"gpu_memory_utilization": options.memory}
    return shared | options.vllm


def _said(arguments: dict[str, Any]) -> str:
    shown = ("dtype", "block_size", "enforce_eager", "max_num_batched_tokens", "gpu_memory_utilization")
    return ", ".join(f"{name} {arguments[name]}" for name in shown if name in arguments)


class Child:
    """An engine in a process of its own, started as `reason serve` starts it. `inside`: the model runs in it."""

    def __init__(self, draft: str, options: argparse.Namespace, stack: ExitStack) -> None:
        self.inside = runs_inprocess(configuration(options, draft), require_vllm())
        command = [sys.executable, "-m", __spec__.name, "--child", draft, "--model", str(options.model)]
        for name in ("tokens", "prompt", "memory", "vote_tokens"):
            command += [f"--{name.replace('_', '-')}", str(vars(options)[name])]
        command += ["--vllm", json.dumps(options.vllm)]
        environment = {**os.environ, **preload_environment()}
        started = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = stack.enter_context(started)
        assert started.stdin
        stack.callback(started.stdin.close)

    def ask(self, what: dict[str, Any]) -> list[Spent]:
        """What the arms of this took."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("[["):
                return [Spent(*one) for one in json.loads(line)]
        raise SystemExit(f"the engine ended ({what})")


async def child(options: argparse.Namespace) -> None:
    """Answers lines of JSON with what its arms took."""
    engine = RecordingEngine(configuration(options, options.child))
    engine.asked = []
    await engine.start()
    arms = Arms(engine, options.tokens, options.prompt)
    async with served(engine) as http:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            if "vote" in asked:
                spent = await vote(http, engine, arms, asked["vote"] + 1, options.vote_tokens)
            else:
                spent = [await arms.run(asked["arm"], asked["number"] + 1)]
            print(json.dumps([[one.seconds, one.cpu, one.tokens, one.accepted] for one in spent]), flush=True)
    await engine.close()


if __name__ == "__main__":
    raise SystemExit(main())
