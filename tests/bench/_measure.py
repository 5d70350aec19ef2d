"""What the benchmarks share: servers as a user starts them, paired ratios with an interval, the machine in a line."""

from __future__ import annotations

import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil


@dataclass(frozen=True)
class Ratio:
    """Median of paired ratios and a 95 % bootstrap interval of that median."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} (95 % interval {self.low:.2f} to {self.high:.2f})"


def paired(ratios: Sequence[float], *, seed: int = 0) -> Ratio:
    """Median and its percentile-bootstrap interval over 10,000 resamples."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return Ratio(statistics.median(ratios), medians[250], medians[9_749])


def machine() -> str:
    """Processor, cores, load and versions, in one line."""
    import torch

    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.processor(),
    )  # fmt: skip
    load = os.getloadavg()[0]
    python, torch_version = platform.python_version(), torch.__version__
    return f"{cpu}, {os.cpu_count()} cores, load {load:.1f}, Python {python}, torch {torch_version}"


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Started:
    """A server that answers, and how long it took from exec to the first 200 of /health/ready."""

    url: str
    process: psutil.Process
    seconds: float

    def memory(self) -> int:
        """Resident bytes of the process and all its children; shared pages are counted once (PSS) where known."""
        total = 0
        for process in (self.process, *self.process.children(recursive=True)):
            total += getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss
        return total

    def cpu(self) -> float:
        """Processor seconds of the server's own process, the engine's child excluded."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def server(*args: str, python: Path | None = None) -> Iterator[Started]:
    """`reason serve …` in a process of its own on a free port, until the block ends; of another environment where its
    interpreter is named."""
    port = free_port()
    command = [str((python or Path(sys.executable)).parent / "reason"), "serve", *args, "--port", str(port)]
    url, begun = f"http://127.0.0.1:{port}", time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not _ready(url):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended: {process.stderr.read() if process.stderr else ''}")
                if time.monotonic() - begun > 300:
                    raise SystemExit("the server did not become ready in 300 s")
                time.sleep(0.02)
            yield Started(url, psutil.Process(process.pid), time.monotonic() - begun)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def client(url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """An HTTP client with room for many streams."""
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        yield http


async def stream_tokens(http: httpx2.AsyncClient, body: dict[str, object]) -> int:
    """Stream one chat answer to its end; completion tokens as the server counts them."""
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    tokens = 0
    async with http.stream("POST", "/v1/chat/completions", json=asked) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {") and '"usage"' in line:
                tokens = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", tokens)
    return tokens


def _ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/ready", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False
