"""One attempt to get out, and the check afterwards: nothing passed, nothing runs, nothing was written."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import uuid
from functools import cache
from pathlib import Path

import pytest

from reason_engine.types import CodeLimits, CodeResult, CodeTest
from reason_engine.verifiers import sandbox as host
from reason_engine.verifiers.sandbox import Sandbox
from reason_engine.verifiers.sandbox.limits import missing

SECONDS = 0.4
START = 5.0
"""For the start of the process, which is not the program's time, on a machine with other work."""


class Seen(set[int]):
    """Remembers what was in it."""

    def __init__(self) -> None:
        self.ever: list[int] = []

    def add(self, item: int, /) -> None:
        self.ever.append(item)
        super().add(item)


@cache
def available(mode: str) -> bool:
    """Whether this machine lets these limits be set. Where CI=true it must."""
    if os.environ.get("CI") == "true":
        return True
    if missing():
        return False
    command = [sys.executable, "-I", "-S", str(host.SUPERVISOR), mode]
    return b"ready" in subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={}).stdout


needs_limits = pytest.mark.skipif(
    not available("spaces") and not available("plain"), reason="code cannot be limited on this machine"
)


def sandbox(mode: str = "") -> tuple[Sandbox, Seen]:
    """One with these limits (none named: the best to be had), and the ids of its processes."""
    if mode and not available(mode):
        pytest.skip(f"no limits of the kind {mode!r} on this machine")
    made, seen = Sandbox(), Seen()
    made.running, made._mode = seen, mode
    return made, seen


async def attempt(
    source: str, mode: str, monkeypatch: pytest.MonkeyPatch, check: str | None = None, seconds: float = SECONDS
) -> None:
    mark, secret = f"mark{uuid.uuid4().hex}", f"secret{uuid.uuid4().hex}"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    box, seen = sandbox(mode)
    results: list[dict[str, object]] = []
    result_of = host._result

    def recorded(test: CodeTest, found: dict[str, object]) -> CodeResult:
        results.append(found)
        return result_of(test, found)

    monkeypatch.setattr(host, "_result", recorded)
    test = CodeTest(check=check) if check else CodeTest(input="", output="ESCAPED")
    source = source.replace("MARK", mark).replace("SECRET", secret)
    async with asyncio.timeout(START + seconds + 1):
        (result,) = await box.run(source, [test], CodeLimits(seconds, 128))
    assert not result.passed
    assert results and not any("ESCAPED" in str(part) for found in results for part in found.values())
    assert leftovers(seen.ever) == []
    assert written(mark) == []


def leftovers(sessions: list[int]) -> list[str]:
    """Processes of these sessions."""
    found: list[str] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.getsid(int(entry)) in sessions:
                    found.append(Path(f"/proc/{entry}/cmdline").read_text())
            except OSError:
                continue
    return found


def written(mark: str) -> list[Path]:
    """Files of that name where a program might have put them."""
    stdlib = sysconfig.get_paths()["stdlib"]
    places = ("/tmp", "/dev/shm", "/var/tmp", "/", str(Path.home()), os.getcwd(), stdlib)
    return [path for place in places for path in Path(place).glob(f"*{mark}*")]
