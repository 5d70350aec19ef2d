"""Whether a change of the code costs speed: two checkouts side by side, alternating, as a user runs them.

    python -m tests.bench.before_after --before DIR [--after DIR] [--pairs 12] [--only chat,vote]

Each checkout has its own `.venv`. Both serve the bundled nano; every measure is taken from one and then from the
other, in turns that begin with either, and their ratio is of speeds (above 1: `after` is faster), with a bootstrap
interval of the median. `chat`: tokens a second of 32 concurrent streams. `first`: first token of one stream. `vote`: a
streamed vote of 16. `game24`: a tree search. `import`, `help`: processes. `grpo`: steps of `reason train grpo`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from tests.bench._measure import client, free_port, machine, paired, stream_tokens

WORDS = "Tom has 12 apples and buys 7 more. He gives 4 to Ann. How many apples does Tom have?"
PUZZLES = ("4 5 6 10", "1 2 4 7", "2 3 5 12", "1 4 5 6", "4 7 8 8", "2 6 9 10")
STREAMS = 32
GRPO = """out: {out}
model: {model}
mixture: [{{family: words, share: 1, params: {{steps: [5, 8], digits: [1, 2]}}}}]
rewards: [{{verifier: exact, families: [words]}}]
steps: 5
prompts: 4
samples: 8
max_tokens: 100
micro_tokens: 1536
threads: 2
seed: 3
"""


@contextmanager
def serving(checkout: Path) -> Iterator[str]:
    """`reason serve` of one checkout; its address once it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(checkout / ".venv/bin/reason"), "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=checkout) as process:
        try:
            while True:
                try:
                    if httpx2.get(f"{url}/health/ready", timeout=2).status_code == 200:
                        break
                except httpx2.HTTPError:
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def chat(url: str, turn: int) -> float:
    """Tokens a second of STREAMS streams at once."""

    async def run() -> float:
        async with client(url) as http:
            bodies = [
                body(WORDS, "chain-of-thought", seed=1000 * turn + i // 2, temperature=0.8) for i in range(STREAMS)
            ]
            begun = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(stream_tokens(http, one)) for one in bodies]
            return sum(task.result() for task in tasks) / (time.perf_counter() - begun)

    return asyncio.run(run())


def first(url: str, turn: int) -> float:
    """One over the seconds to the first content or reasoning of a stream; the median of several."""

    async def once(http: httpx2.AsyncClient, seed: int) -> float:
        asked = {**body(f"{WORDS} ({seed})", "chain-of-thought", seed=seed), "stream": True}
        begun, told = time.perf_counter(), 0.0
        async with http.stream("POST", "/v1/chat/completions", json=asked) as response:
            async for line in response.aiter_lines():
                if not told and line.startswith("data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    if delta.get("content") or delta.get("reasoning"):
                        told = time.perf_counter() - begun
        return told

    async def run() -> float:
        async with client(url) as http:
            return 1 / statistics.median([await once(http, 100 * turn + i) for i in range(8)])

    return asyncio.run(run())


def vote(url: str, turn: int) -> float:
    """Streamed votes of 16 a second."""
    return _answers(url, [body(WORDS, "self-consistency", seed=10 * turn + i, n=16) for i in range(3)])


def game24(url: str, turn: int) -> float:
    """Tree searches a second."""
    questions = [f"Use the numbers {puzzle} and + - * / to make 24." for puzzle in PUZZLES]
    return _answers(url, [body(question, "tree-of-thoughts", seed=turn) for question in questions])


def import_time(checkout: Path, turn: int) -> float:
    """Imports a second of the package, the server's application and the strategies."""
    code = "import reason_engine.serving.app; from reason_engine.strategies import strategies; list(strategies)"
    return _processes([str(checkout / ".venv/bin/python"), "-c", code], checkout)


def help_time(checkout: Path, turn: int) -> float:
    """`reason --help` a second."""
    return _processes([str(checkout / ".venv/bin/reason"), "--help"], checkout)


def grpo(checkout: Path, turn: int) -> float:
    """Steps a second of `reason train grpo` from the bundled weights, the first step left out."""
    with tempfile.TemporaryDirectory() as folder:
        out, config = Path(folder) / "out", Path(folder) / "grpo.yaml"
        config.write_text(GRPO.format(out=out, model=checkout / "reason_engine/models/nano"), "utf-8")
        command = [str(checkout / ".venv/bin/reason"), "train", "grpo", "--config", str(config), "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=checkout, check=False)
        rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        spent = [row["seconds"] for row in rows if "seconds" in row and "step" in row]
        if ran.returncode or len(spent) < 3:
            raise SystemExit(f"{' '.join(command)}: {ran.stderr[-2000:]}")
        return (len(spent) - 1) / (spent[-1] - spent[0])


SERVED: dict[str, Callable[[str, int], float]] = {"chat": chat, "first": first, "vote": vote, "game24": game24}
RUN: dict[str, Callable[[Path, int], float]] = {"import": import_time, "help": help_time, "grpo": grpo}


def main() -> None:
    """Print one JSON object: the ratio of each measure and the values behind it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--only", default=",".join((*SERVED, *RUN)))
    options = parser.parse_args()
    names, checkouts = options.only.split(","), (options.before.resolve(), options.after.resolve())
    found: dict[str, object] = {"machine": machine()}
    with ExitStack() as stack:
        wanted = [name for name in names if name in SERVED]
        urls = [stack.enter_context(serving(one)) for one in checkouts] if wanted else []
        for name in wanted:
            found[name] = _alternate(lambda side, turn, run=SERVED[name]: run(urls[side], turn), options.pairs)
            print(json.dumps({name: found[name]}), flush=True)
    for name in (name for name in names if name in RUN):
        found[name] = _alternate(lambda side, turn, run=RUN[name]: run(checkouts[side], turn), options.pairs)
        print(json.dumps({name: found[name]}), flush=True)
    print(json.dumps(found, indent=1))


def body(question: str, strategy: str, *, seed: int, temperature: float = 0.8, **fields: object) -> dict[str, object]:
    """A chat request."""
    return {
        "model": "reason-nano",
        "messages": [{"role": "user", "content": question}],
        "seed": seed,
        "temperature": temperature,
        "reasoning": {"strategy": strategy, **fields},
    }


def _answers(url: str, bodies: list[dict[str, object]]) -> float:
    async def run() -> float:
        async with client(url) as http:
            begun = time.perf_counter()
            for one in bodies:
                await stream_tokens(http, one)
            return len(bodies) / (time.perf_counter() - begun)

    return asyncio.run(run())


def _processes(command: list[str], cwd: Path) -> float:
    spent: list[float] = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=cwd)
        spent.append(time.perf_counter() - begun)
    return 1 / statistics.median(spent)


def _alternate(measure: Callable[[int, int], float], pairs: int) -> dict[str, object]:
    """Both sides `pairs` times, the first turn of each left out."""
    values: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs + 1):
        for side in (0, 1) if turn % 2 else (1, 0):
            value = measure(side, turn)
            if turn:
                values[side].append(value)
    ratio = paired([after / before for before, after in zip(*values, strict=True)])
    return {"ratio": str(ratio), "before": _rounded(values[0]), "after": _rounded(values[1])}


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    main()
