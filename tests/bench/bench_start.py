"""Start-up and memory: `reason --help`, `reason serve` until ready, resident memory at rest and after many requests.

python -m tests.bench.bench_start [--requests 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench._measure import client, machine, server

STARTS = 5
QUESTION = "Tom has 12 apples and buys 7 more. How many apples does Tom have?"
STRATEGIES = ("direct", "chain-of-thought", "self-consistency", "tree-of-thoughts")


WARM = 1000
"""Requests after which what is started at need (the process that compares answers) and what is bounded (traces, cached
prefixes) is there."""


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    reason = str(Path(sys.executable).parent / "reason")
    helps: list[float] = []
    for _ in range(STARTS):
        begun = time.monotonic()
        subprocess.run([reason, "--help"], check=True, capture_output=True)
        helps.append(time.monotonic() - begun)
    starts: list[float] = []
    for _ in range(STARTS):
        with server() as started:
            starts.append(started.seconds)
    with server() as started:
        rest = started.memory()
        asyncio.run(_ask(started.url, WARM))
        warm = started.memory()
        asyncio.run(_ask(started.url, requests))
        after = started.memory()
    print(json.dumps({
        "machine": machine(),
        "help_seconds_median": round(statistics.median(helps), 3),
        "ready_seconds": [round(s, 2) for s in starts],
        "ready_seconds_median": round(statistics.median(starts), 2),
        "memory_at_rest_mb": round(rest / 2**20),
        f"memory_after_{WARM}_mb": round(warm / 2**20),
        f"memory_after_{requests}_more_mb": round(after / 2**20),
        "growth_percent": round(100 * (after - warm) / warm, 2),
    }, indent=2))  # fmt: skip


async def _ask(url: str, count: int) -> None:
    waiting = asyncio.Semaphore(8)

    async with client(url) as http, asyncio.TaskGroup() as group:

        async def one(number: int) -> None:
            body = {
                "model": "reason-nano",
                "messages": [{"role": "user", "content": QUESTION}],
                "reasoning": {"strategy": STRATEGIES[number % len(STRATEGIES)]},
                "budget": {"tokens": 400},
                "seed": number,
            }
            async with waiting:
                (await http.post("/v1/chat/completions", json=body)).raise_for_status()

        for number in range(count):
            group.create_task(one(number))


if __name__ == "__main__":
    main()
