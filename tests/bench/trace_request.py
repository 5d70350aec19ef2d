"""Which files of the package one request crosses: a streamed vote of 8 on nano, from the route to the token.

Functions that run between the request's first byte and its `[DONE]` are counted by file, in the server's code and in
the engine's worker alike (the worker runs in a thread here). What a module does while it is imported is not counted:
the same request was answered once before.

    python -m tests.bench.trace_request [--strategy self-consistency] [--calls]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = tuple(f"{ROOT / part}/" for part in ("reason_engine", "cli", "serving"))
QUESTION = "Tom has 12 apples and buys 7 more. He gives 4 to Ann. How many apples does Tom have?"


class FileTracer:
    """A profile function for every thread: counts calls of the package's functions by file while `active`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.active = False

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Count a call, or a coroutine that goes on."""
        code = frame.f_code
        if self.active and event == "call" and code.co_name != "<module>" and code.co_filename.startswith(PACKAGE):
            self.calls[Path(code.co_filename).relative_to(ROOT).as_posix()] += 1

    def install(self) -> None:
        """Profile this thread and every thread that starts from now on."""
        threading.setprofile(self)
        sys.setprofile(self)


async def crossed(strategy: str) -> Counter[str]:
    """Calls by file of one streamed request over ASGI."""
    tracer = FileTracer()
    tracer.install()
    from reason_engine import open_engine, read_profile
    from reason_engine.engines.open import bundled_model
    from reason_engine.serving.app import create_app
    from reason_engine.settings import load_settings

    folder = bundled_model() or Path()
    settings = load_settings({})
    engine = open_engine(settings, inline=True)
    await engine.start()
    app = create_app(engine, read_profile(folder), settings)
    body = {
        "model": engine.info.name,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 1,
        "reasoning": {"strategy": strategy, **({"n": 8} if strategy == "self-consistency" else {})},
    }
    transport = httpx2.ASGITransport(app)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=120) as client:
            for tracer.active in (False, True):
                response = await client.post("/v1/chat/completions", json=body)
                assert response.status_code == 200 and response.text.rstrip().endswith("[DONE]"), response.text
            tracer.active = False
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        await engine.close()
    return tracer.calls


def main() -> None:
    """Print the files, one a line, and how many they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="self-consistency")
    parser.add_argument("--calls", action="store_true", help="calls of functions beside each file")
    options = parser.parse_args()
    calls = asyncio.run(crossed(options.strategy))
    for name in sorted(calls):
        print(f"{calls[name]:8} {name}" if options.calls else name)
    print(f"{len(calls)} files")


if __name__ == "__main__":
    main()
