"""Runs commands in this process, and one server in another."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from reason_engine.cli.main import main


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def reason(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`reason("solve", "1 + 1?")` as the console script would run it."""

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["reason", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Ran(int(end.value.code or 0), said.out, said.err)

    return run


class Running(NamedTuple):
    url: str
    banner: str
    process: subprocess.Popen[str]


def serve(*words: str) -> Running:
    """A server on a free port, once it says that it is ready."""
    command = [sys.executable, "-m", "reason_engine.cli.main", "serve", "--port", "0", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("  curl "):
            break
    else:
        raise AssertionError(process.communicate()[1])
    url = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
    assert url
    return Running(url[0], "".join(lines), process)


def stop(running: Running) -> int:
    running.process.send_signal(signal.SIGTERM)
    running.process.communicate(timeout=30)
    return running.process.returncode


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server on the scripted engine."""
    running = serve("--engine", "scripted")
    yield running
    assert stop(running) == 0
