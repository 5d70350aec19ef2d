"""The process between the server and the code: starts a fresh locked-in process for each test and times it.

Messages in: the tests' common part, then one message a test, in order. Out: {"ready"} or {"refused"}, then one result
a test. A test with an expectation is read by its judge, not here, so that the code's process, a copy of this one, never
held it. What an input/output test is to print stays in the server. A test may take half of the time that is left, the
last one all of it, so that one that hangs does not take every other one with it.

Run as a program, by its path: `python -I -S supervisor.py spaces|plain`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

if __name__ == "__main__":  # empty packages in place of those around this file, whose imports are heavy
    folder, package = os.path.dirname(os.path.abspath(__file__)), "reason_engine.verifiers.sandbox"
    while package:
        module = sys.modules[package] = types.ModuleType(package)
        module.__path__ = [folder]
        folder, package = os.path.dirname(folder), package.rpartition(".")[0]

from reason_engine.verifiers.sandbox import guest, limits
from reason_engine.verifiers.sandbox.protocol import decode, receive, send

OUTPUT = 64 * 1024
"""Bytes that a program may print on each of its outputs."""
VERDICT = 64 * 1024
"""Bytes of a judge's verdict."""
LATE, LOUD = "out of time", f"printed more than {OUTPUT // 1024} KiB"


def main(*, spaces: bool) -> None:
    """Set the outer limits, then serve from a process inside them. Ends with its standard input."""
    try:
        libc, folders = limits.c_library(), limits.readable_folders()
        null = limits.moved_up(os.open("/dev/null", os.O_RDWR))
        if reason := limits.missing():
            raise OSError(reason)
        limits.confine(libc, folders, spaces=spaces)
    except (OSError, ValueError) as error:
        send(1, {"refused": str(error)})
        return
    children: set[int] = set()
    signal.signal(signal.SIGTERM, lambda *_: _end(children))
    if spaces:
        inner = _fork(children)  # the first process of the new name space: when it ends, all in it do
        if inner:
            for handle in (0, 1):
                os.dup2(null, handle)
            os.waitpid(inner, 0)
            os._exit(0)
        limits.end_with_parent(libc)
    supervisor = Supervisor(libc, list(folders.values()), null, children)
    with contextlib.suppress(EOFError):
        send(1, {"ready": True})
        supervisor.serve(receive(0))
    os._exit(0)


class Supervisor:
    """Runs the tests of one program, one after the other. `null`: a handle of /dev/null."""

    def __init__(self, libc: Any, folders: list[int], null: int, children: set[int]) -> None:
        self._libc, self._folders, self._null, self._children = libc, folders, null, children

    def serve(self, task: dict[str, Any]) -> None:
        """Answer each of the tests to come. Raises EOFError where they end early."""
        self._source, self._entry = task["source"], task["entry_point"]
        self._seconds, self._memory = task["seconds"], task["memory_mb"]
        left, kinds = self._seconds, task["kinds"]
        gc.freeze()
        for place, kind in enumerate(kinds):
            allowed = left if place == len(kinds) - 1 else left / 2
            result, used = self._run(allowed) if kind == "run" else self._judge(allowed)
            left = max(0.0, left - used)
            send(1, result)

    def _run(self, allowed: float) -> tuple[dict[str, Any], float]:
        """A program on an input: what it printed, or why there is nothing; and the seconds it took."""
        text = str(receive(0)["input"]).encode("utf-8", "surrogatepass")
        (stdin_end, stdin), (stdout, stdout_end), (stderr, stderr_end) = os.pipe(), os.pipe(), os.pipe()
        handles = {0: stdin_end, 1: stdout_end, 2: stderr_end}
        program = self._start(handles, lambda: guest.run_program(self._source))
        for handle in handles.values():
            os.close(handle)
        started = time.monotonic()
        read, why = _collect({stdout: OUTPUT, stderr: OUTPUT}, program, started + allowed, stdin, text)
        status = self._stop(program)
        used = time.monotonic() - started
        if not why and status:
            last = read[stderr].decode("utf-8", "replace").strip().splitlines()
            why = last[-1] if last else f"ended with status {status}"
        return {"output": read[stdout].decode("utf-8", "replace"), "detail": why[:300]}, used

    def _judge(self, allowed: float) -> tuple[dict[str, Any], float]:
        """A test by a judge of its own: passed or not, and why not; and the seconds it took."""
        (asked_end, asked), (replies_end, replies) = os.pipe(), os.pipe()
        (verdict, verdict_end), (output, output_end) = os.pipe(), os.pipe()
        test: dict[str, Any] = {}

        def read_test() -> None:
            test.update(receive(0))
            os.write(verdict_end, b"r")

        def judge() -> int:
            send(5, guest.judge(test, self._entry, 3, 4))
            return 0

        def offer() -> int:
            guest.offer_module(self._source, 3, 4)
            return 0

        quiet = dict.fromkeys((0, 1, 2), self._null)
        judging = self._start({**quiet, 3: replies_end, 4: asked, 5: verdict_end}, judge, first=read_test)
        os.close(verdict_end)
        if os.read(verdict, 1) != b"r":
            self._stop(judging)
            raise EOFError("no test came")
        program = self._start({0: self._null, 1: output_end, 2: output_end, 3: asked_end, 4: replies}, offer)
        for handle in (asked_end, asked, replies_end, replies, output_end):
            os.close(handle)
        started = time.monotonic()
        read, why = _collect({verdict: VERDICT, output: OUTPUT}, judging, started + allowed)
        self._stop(program)
        self._stop(judging)
        used = time.monotonic() - started
        return _verdict(read[verdict], why), used

    def _stop(self, process: int) -> int:
        """Kill it, if it still runs; returns its exit status, minus the signal where one ended it."""
        os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self._children.discard(process)
        return status

    def _start(self, handles: dict[int, int], work: Callable[[], int], first: Callable[[], None] = lambda: None) -> int:
        """A process that does `first`, locks itself in with these handles and no others, and does `work`."""
        child = _fork(self._children)
        if child:
            return child
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            first()
            moved = {place: limits.moved_up(os.dup(handle)) for place, handle in handles.items()}
            for place, handle in moved.items():
                os.dup2(handle, place)
            for handle in range(max(handles) + 1, 256):
                if handle not in self._folders:
                    _close(handle)
            limits.lock_in(self._libc, self._folders, self._seconds, self._memory)
            for handle in self._folders:
                _close(handle)
            status = work()
        except BaseException as error:
            print(guest.explain(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status & 0xFF)


def _collect(
    most: dict[int, int], process: int, deadline: float, stdin: int = -1, text: bytes = b""
) -> tuple[dict[int, bytes], str]:
    """Read handles, at most so many bytes of each, until the process has ended, writing `text` to `stdin`; closes the
    handles. Returns what came, and why it stopped where that was not the end."""
    read = dict.fromkeys(most, b"")
    ended = os.pidfd_open(process)
    poll = select.poll()
    for handle in (*most, ended):
        poll.register(handle, select.POLLIN)
    if stdin >= 0:
        os.set_blocking(stdin, False)
        poll.register(stdin, select.POLLOUT)
    open_handles, over, why = set(most), False, ""
    while not why and not (over and not open_handles):
        left = 0 if over else deadline - time.monotonic()
        events = poll.poll(max(0, left) * 1000) if left > 0 or over else []
        if not events:
            why = "" if over else LATE
            break
        for handle, _ in events:
            if handle == ended:
                over = True
                poll.unregister(ended)
            elif handle == stdin:
                text = _write_some(stdin, text)
                if not text:
                    poll.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
            else:
                part = os.read(handle, 1 << 16)
                read[handle] += part
                if not part:
                    poll.unregister(handle)
                    open_handles.discard(handle)
                elif len(read[handle]) > most[handle]:
                    why = LOUD
    for handle in (*most, ended, stdin):
        _close(handle)
    return read, why


def _write_some(handle: int, data: bytes) -> bytes:
    """Returns what is left, nothing where the reader is gone."""
    try:
        return data[os.write(handle, data) :] if data else b""
    except BrokenPipeError:
        return b""
    except BlockingIOError:
        return data


def _verdict(message: bytes, why: str) -> dict[str, Any]:
    """What the judge sent, or why there is nothing."""
    try:
        if why or not message:
            raise ValueError(why or "the judge ended")
        found = decode(message[: 1 << 15])
        return {"passed": found["passed"] is True, "detail": str(found["detail"])[:300]}
    except (ValueError, EOFError) as error:
        return {"passed": False, "detail": str(error)}


def _fork(children: set[int]) -> int:
    """A child that is on the list before this process can be ended; in the child, the signal that ends it waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child:
        children.add(child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return child


def _end(children: set[int]) -> NoReturn:
    for child in children:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    os._exit(0)


def _close(handle: int) -> None:
    if handle >= 0:
        with contextlib.suppress(OSError):
            os.close(handle)


if __name__ == "__main__":
    main(spaces=sys.argv[1] == "spaces")
