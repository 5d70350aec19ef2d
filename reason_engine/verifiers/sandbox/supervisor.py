"""The process between the server and the code: starts a fresh locked-in process for each test and times it.

Messages in: one job, then one a test, in order. Out: {"ready"} or {"refused"}, then one result a test. A test with an
expectation is read by its judge, not by the warden, so that the code's process, a copy of the warden, never held it.
What an input/output test is to print stays in the server. A test may take half of the time that is left, the last one
all of it, so that one that hangs does not take every other one with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from reason_engine.verifiers.sandbox import guest as prisoner
from reason_engine.verifiers.sandbox import limits as walls
from reason_engine.verifiers.sandbox.frames import receive, send

OUTPUT = 64 * 1024
"""Bytes that a program may print on each of its outputs."""
LATE, LOUD = "out of time", f"printed more than {OUTPUT // 1024} KiB"


def main(*, spaces: bool) -> None:
    """Put up the outer walls, then serve from a process inside them. Ends with its standard input."""
    try:
        libc, folders = walls.system(), walls.library()
        null = walls.above(os.open("/dev/null", os.O_RDWR))
        if reason := walls.missing():
            raise OSError(reason)
        walls.surround(libc, folders, spaces=spaces)
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
        walls.follow_parent(libc)
    warden = Warden(libc, list(folders.values()), null, children)
    try:
        send(1, {"ready": True})
        warden.serve(receive(0))
    except EOFError:
        pass
    os._exit(0)


class Warden:
    """Runs the tests of one job, one after the other."""

    def __init__(self, libc: Any, folders: list[int], null: int, children: set[int]) -> None:
        self._libc, self._folders, self._null, self._children = libc, folders, null, children

    def serve(self, job: dict[str, Any]) -> None:
        self._source, self._entry = job["source"], job["entry_point"]
        self._seconds, self._memory = job["seconds"], job["memory_mb"]
        left, kinds = self._seconds, job["kinds"]
        gc.freeze()
        for place, kind in enumerate(kinds):
            allowed = left if place == len(kinds) - 1 else left / 2
            result, used = self._run(allowed) if kind == "run" else self._judge(allowed)
            left = max(0.0, left - used)
            send(1, result)

    def _run(self, allowed: float) -> tuple[dict[str, Any], float]:
        """A program on an input: what it printed, or why there is nothing."""
        given = str(receive(0)["input"]).encode("utf-8", "surrogatepass")
        (feed_in, feed), (out, out_in), (err, err_in) = os.pipe(), os.pipe(), os.pipe()
        program = self._start({0: feed_in, 1: out_in, 2: err_in}, lambda: prisoner.run_program(self._source))
        for handle in (feed_in, out_in, err_in):
            os.close(handle)
        started = time.monotonic()
        got, why = _collect({out: OUTPUT, err: OUTPUT}, program, started + allowed, feed, given)
        status = self._stop(program)
        used = time.monotonic() - started
        if not why and status:
            last = got[err].decode("utf-8", "replace").strip().splitlines()
            why = last[-1] if last else f"ended with status {status}"
        return {"output": got[out].decode("utf-8", "replace"), "detail": why[:300]}, used

    def _judge(self, allowed: float) -> tuple[dict[str, Any], float]:
        """A test by a judge of its own: passed or not, and why not."""
        (asked_in, asked), (told_in, told), (word, word_in) = os.pipe(), os.pipe(), os.pipe()

        test: dict[str, Any] = {}

        def read_test() -> None:
            test.update(receive(0))
            os.write(word_in, b"r")

        def judge() -> int:
            send(5, prisoner.judge(test, self._entry, 3, 4))
            return 0

        quiet = {0: self._null, 1: self._null, 2: self._null}
        court = self._start({**quiet, 3: told_in, 4: asked, 5: word_in}, judge, first=read_test)
        os.close(word_in)
        if os.read(word, 1) != b"r":
            self._stop(court)
            raise EOFError("no test came")
        (out, out_in) = os.pipe()
        source = self._source
        program = self._start(
            {0: self._null, 1: out_in, 2: out_in, 3: asked_in, 4: told},
            lambda: prisoner.offer_module(source, 3, 4) or 0,
        )
        for handle in (asked_in, asked, told_in, told, out_in):
            os.close(handle)
        started = time.monotonic()
        got, why = _collect({word: 1 << 16, out: OUTPUT}, court, started + allowed)
        self._stop(program)
        self._stop(court)
        used = time.monotonic() - started
        return _verdict(got[word], why), used

    def _stop(self, process: int) -> int:
        """Kill it, if it still runs; returns its exit status, minus the signal where one ended it."""
        os.kill(process, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self._children.discard(process)
        return status

    def _start(
        self, handles: dict[int, int], work: Callable[[], int], first: Callable[[], None] = lambda: None
    ) -> int:
        """A process that locks itself in, with these handles and no others, and does that work."""
        child = _fork(self._children)
        if child:
            return child
        status = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            first()
            out_of_the_way = {place: walls.above(os.dup(handle)) for place, handle in handles.items()}
            for place, handle in out_of_the_way.items():
                os.dup2(handle, place)
            for handle in range(max(handles) + 1, 256):
                if handle not in self._folders:
                    _close(handle)
            walls.lock_in(self._libc, self._folders, self._seconds, self._memory)
            for handle in self._folders:
                _close(handle)
            status = work()
        except BaseException as error:
            print(prisoner.explain(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status & 0xFF)


def _collect(
    reads: dict[int, int], until: int, deadline: float, feed: int = -1, given: bytes = b""
) -> tuple[dict[int, bytes], str]:
    """Read until the process `until` has ended, feeding it; closes the handles. Returns what came, and why it stopped
    where that was not the end."""
    got = dict.fromkeys(reads, b"")
    ended = os.pidfd_open(until)
    poll = select.poll()
    for handle in (*reads, ended):
        poll.register(handle, select.POLLIN)
    if feed >= 0:
        os.set_blocking(feed, False)
        poll.register(feed, select.POLLOUT)
    waiting, over, why = set(reads), False, ""
    while not why and not (over and not waiting):
        left = 0 if over else deadline - time.monotonic()
        events = poll.poll(max(0, left) * 1000) if left > 0 or over else []
        if not events:
            why = "" if over else LATE
            break
        for handle, _ in events:
            if handle == ended:
                over = True
                poll.unregister(ended)
            elif handle == feed:
                given = _push(feed, given)
                if not given:
                    poll.unregister(feed)
                    os.close(feed)
                    feed = -1
            else:
                part = os.read(handle, 1 << 16)
                got[handle] += part
                if not part:
                    poll.unregister(handle)
                    waiting.discard(handle)
                elif len(got[handle]) > reads[handle]:
                    why = LOUD
    for handle in (*reads, ended, feed):
        _close(handle)
    return got, why


def _push(handle: int, data: bytes) -> bytes:
    """Write some; returns what is left, nothing where the reader is gone."""
    if not data:
        return b""
    try:
        return data[os.write(handle, data) :]
    except BrokenPipeError:
        return b""
    except BlockingIOError:
        return data


def _verdict(word: bytes, why: str) -> dict[str, Any]:
    reader, writer = os.pipe()
    try:
        if why or not word:
            raise ValueError(why or "the judge ended")
        os.write(writer, word[: 1 << 15])
        os.close(writer)
        writer = -1
        found = receive(reader)
        return {"passed": found["passed"] is True, "detail": str(found["detail"])[:300]}
    except (ValueError, EOFError) as error:
        return {"passed": False, "detail": str(error)}
    finally:
        _close(reader)
        _close(writer)


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
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except OSError:
            continue
    os._exit(0)


def _close(handle: int) -> None:
    if handle >= 0:
        with contextlib.suppress(OSError):
            os.close(handle)
