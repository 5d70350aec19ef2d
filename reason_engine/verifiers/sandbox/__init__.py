"""Runs programs that nobody trusts, each in processes of its own that can reach nothing: the server's end.

The server starts one `supervisor` a path, which starts a fresh locked-in process (`guest`) for each test. What those
may not do stands in `limits` and `seccomp`, what they exchange in `protocol` and `object_link`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reason_engine.errors import VerifierError
from reason_engine.types import CodeLimits, CodeResult, CodeTest
from reason_engine.verifiers.sandbox.limits import missing
from reason_engine.verifiers.sandbox.protocol import LARGEST, encode

START_SECONDS = 10.0
"""For the limits to be set, on a machine that has other work."""
GRACE_SECONDS = 0.5
"""The supervisor keeps the limit by itself; this much later it is killed."""
END_SECONDS = 0.25
SUPERVISOR = Path(__file__).with_name("supervisor.py")
NEEDS = (
    "it needs seccomp, and either user name spaces or Landlock (Linux 5.13 or later): in a container, a runtime whose "
    "seccomp profile lets them through"
)


class Sandbox:
    """Implements `contracts.CodeSandbox`. `slots`: paths that run at once. An object belongs to one event loop;
    cancelling a run kills its processes at once."""

    def __init__(self, slots: int = 2) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._refusal = missing()
        self._mode = ""
        self.running: set[int] = set()
        """Ids of the processes that are up now."""

    @property
    def refusal(self) -> str:
        """Why nothing may run on this machine, as far as is known; empty where it may."""
        return self._refusal

    async def probe(self) -> str:
        """Set the limits once and say why that fails; empty where it does not."""
        if not self._refusal and not self._mode:
            with contextlib.suppress(VerifierError):
                await self.run("", [CodeTest(check="pass")], CodeLimits(1.0))
        return self._refusal

    async def run(
        self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        """One result a test, in order. Raises VerifierError where this machine cannot limit what runs."""
        task = {
            "source": source,
            "entry_point": entry_point,
            "seconds": limits.seconds,
            "memory_mb": limits.memory_mb,
            "kinds": [_kind(test, entry_point) for test in tests],
        }
        if self._refusal:
            raise VerifierError(f"code cannot be limited here: {self._refusal}")
        async with self._slots:
            reasons: list[str] = []
            for mode in (self._mode,) if self._mode else ("spaces", "plain"):
                try:
                    results = await self._run(mode, task, tests)
                except _Refused as refused:
                    if self._mode:
                        raise
                    reasons.append(str(refused))
                else:
                    self._mode = mode
                    return results
            self._refusal = f"{'; '.join(reasons)}; {NEEDS}"
            raise VerifierError(f"code cannot be limited here: {self._refusal}")

    async def _run(self, mode: str, task: dict[str, Any], tests: Sequence[CodeTest]) -> list[CodeResult]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-X", "utf8", str(SUPERVISOR), mode),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        self.running.add(process.pid)
        try:
            return await _converse(process, task, tests)
        finally:
            await _end(process)
            self.running.discard(process.pid)


class _Refused(Exception):
    """A limit that cannot be had."""


async def _converse(
    process: asyncio.subprocess.Process, task: dict[str, Any], tests: Sequence[CodeTest]
) -> list[CodeResult]:
    try:
        async with asyncio.timeout(START_SECONDS):
            hello = await _receive(process)
    except (TimeoutError, EOFError) as error:
        raise VerifierError(f"the sandbox did not start: {error or 'no answer'}") from None
    if "refused" in hello:
        raise _Refused(hello["refused"])
    results: list[CodeResult] = []
    asked = [_message(test, kind) for test, kind in zip(tests, task["kinds"], strict=True)]
    sending = asyncio.create_task(_send(process, [task, *asked]))
    try:
        async with asyncio.timeout(task["seconds"] + GRACE_SECONDS):
            for test in tests:
                results.append(_result(test, await _receive(process)))
    except (TimeoutError, EOFError):
        results += [CodeResult(False, "out of time")] * (len(tests) - len(results))
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    return results


async def _send(process: asyncio.subprocess.Process, messages: Sequence[Any]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):
        for message in messages:
            process.stdin.write(encode(message))
            await process.stdin.drain()


async def _receive(process: asyncio.subprocess.Process) -> Any:
    """The supervisor's next message. Raises EOFError."""
    assert process.stdout is not None
    try:
        size = int.from_bytes(await process.stdout.readexactly(4))
        if size > LARGEST:
            raise EOFError("nonsense came out of the sandbox")
        return json.loads(await process.stdout.readexactly(size))
    except (asyncio.IncompleteReadError, ValueError):
        raise EOFError("the sandbox ended") from None


def _kind(test: CodeTest, entry_point: str | None) -> str:
    return "check" if test.check is not None else "call" if entry_point else "run"


def _message(test: CodeTest, kind: str) -> dict[str, Any]:
    """What the sandbox gets of a test. The expected output of a run stays here, and is compared here."""
    if kind == "check":
        return {"check": test.check}
    return {"input": test.input, "output": test.output} if kind == "call" else {"input": test.input}


def _result(test: CodeTest, found: dict[str, Any]) -> CodeResult:
    if "output" not in found:
        return CodeResult(found["passed"] is True, str(found["detail"]))
    output = str(found["output"])
    if found["detail"]:
        return CodeResult(False, str(found["detail"]), output)
    if _lines(output) == _lines(test.output):
        return CodeResult(True, output=output)
    return CodeResult(False, f"printed {output!r:.80}, not {test.output!r:.80}", output)


def _lines(text: str) -> list[str]:
    """Lines without blanks at their ends, without empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill everything in it and wait until that is so: first by a signal it handles, which leaves no zombies behind."""
    try:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await process.wait()
    finally:
        killed = process.returncode != 0 and _kill(process.pid)
    await process.communicate()  # reads to the end, so that no transport is left open
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            while killed:  # orphans are dead; the system removes them
                await asyncio.sleep(0.005)
                killed = _kill(process.pid)


def _kill(group: int) -> bool:
    """Kill a process group; whether there was any of it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
