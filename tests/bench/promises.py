"""Two promises, shown on a running server: every branch dies when the client leaves, and a token budget is exact.

    reason serve & python -m tests.bench.promises [--url http://127.0.0.1:8000] [--runs 5]

A 64-path vote is read as a stream and dropped a quarter of the way; the time until the gauge of running sequences is
0 is printed. Then budgets of 500 tokens under several strategies: what `usage` says beside the server's own counter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time

import httpx2

from tests.bench._measure import client

QUESTION = "Use the numbers 4 5 6 10 and + - * / to make 24."


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(_show(options.url, options.runs)), indent=2))


async def _show(url: str, runs: int) -> dict[str, object]:
    async with client(url) as http:
        whole = await _vote(http, None)
        idle = [round(await _leave(http, whole // 4), 3) for _ in range(runs)]
        budgets: list[dict[str, object]] = []
        for strategy in ("direct", "self-consistency", "best-of-n", "tree-of-thoughts"):
            before = await _metric(http, "reason_engine_tokens_total")
            body = {**_body(strategy, 7), "budget": {"tokens": 500}}
            answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
            made = await _metric(http, "reason_engine_tokens_total") - before
            said, stopped = answer["usage"]["completion_tokens"], answer["reason"]["stopped"]
            budgets.append({"strategy": strategy, "usage": said, "engine": made, "stopped": stopped})
    return {"seconds_until_idle": idle, "budget_500": budgets}


def _body(strategy: str, seed: int) -> dict[str, object]:
    options = {"n": 64} if strategy in ("self-consistency", "best-of-n") else {}
    turn = {"role": "user", "content": QUESTION}
    return {"model": "reason-nano", "seed": seed, "messages": [turn], "reasoning": {"strategy": strategy, **options}}


async def _vote(http: httpx2.AsyncClient, leave_after: int | None) -> int:
    """Stream a vote; number of lines read, all of them or as many as asked for."""
    lines = 0
    async with http.stream(
        "POST", "/v1/chat/completions", json={**_body("self-consistency", 3), "stream": True}
    ) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            lines += line.startswith("data:")
            if leave_after is not None and lines >= leave_after:
                break
    return lines


async def _leave(http: httpx2.AsyncClient, lines: int) -> float:
    await _vote(http, max(1, lines))
    begun = time.monotonic()
    while await _metric(http, "reason_sequences_running") > 0:
        if time.monotonic() - begun > 30:
            raise SystemExit("the engine was still working 30 s after the client had left")
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def _metric(http: httpx2.AsyncClient, name: str) -> float:
    text = (await http.get("/metrics")).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


if __name__ == "__main__":
    main()
