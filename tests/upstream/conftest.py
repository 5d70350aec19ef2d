"""llama.cpp's own servers with a small real chat model, each for a whole session."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.real.smollm2 import Missing, gguf_file

BUILT = Path(__file__).parents[2] / ".llama" / "bin" / "llama-server"
SLOTS = 4


@dataclass(frozen=True)
class Server:
    """A running server. `kill` ends it as a power cut would."""

    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        self.process.kill()


def program() -> str:
    """The server's program: $LLAMA_SERVER, else the one that `make llama-server` built, else on the PATH."""
    named = os.environ.get("LLAMA_SERVER") or (str(BUILT) if BUILT.exists() else shutil.which("llama-server"))
    if not named:
        pytest.skip("no llama-server: name one in LLAMA_SERVER, or `make llama-server`")
    return named


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    try:
        model = gguf_file()
    except Missing as error:
        pytest.skip(str(error))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program(), "-m", str(model), "--alias", "smollm2", "--host", "127.0.0.1", "--port", str(port),
        "-c", str(SLOTS * 1024), "-np", str(SLOTS), "-t", "1", *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = list[str]()
    try:
        for line in process.stderr:
            said.append(line)
            if "listening on" in line:
                break
        else:
            raise AssertionError("".join(said[-20:]))
        yield Server(f"http://127.0.0.1:{port}/v1", process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving("--no-ui") as running:
        yield running
