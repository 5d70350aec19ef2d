"""vLLM's own servers behind the remote engine: two of them on one machine, one killed in the middle of a vote."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.runtime.solve import solve
from reason_engine.runtime.trace import Delta, Event
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Limits, Problem
from tests.engines.vllm.tiny import MARKS

pytestmark = MARKS
N, TOKENS = 8, 48


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The name and the process of a server that is not ready yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port),
        "--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "512", "--served-model-name", "tiny",
        "--enforce-eager",
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    # A group of its own: the server has a child that would outlive it.
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        kill(server)
        server.communicate()


def kill(server: subprocess.Popen[str]) -> None:
    """As a power cut would."""
    if server.poll() is None:
        os.killpg(server.pid, 9)


def wait_for(server: subprocess.Popen[str]) -> None:
    assert server.stderr is not None
    said = list[str]()
    for line in server.stderr:
        said.append(line)
        if "Application startup complete" in line:
            return
    raise AssertionError("".join(said[-40:]))


async def test_a_vote_completes_when_one_of_two_replicas_is_killed_in_its_middle(folder: Path) -> None:
    with ExitStack() as stack:
        servers = dict(stack.enter_context(serving(folder)) for _ in range(2))
        for server in servers.values():
            wait_for(server)
        urls = [f"http://{name}/v1" for name in servers]
        engine = OpenAIEngine(OpenAIConfig(base_url=urls[0], replicas=(urls[1],), tokenizer=str(folder)))
        await engine.start()
        try:
            caps, report = engine.caps, {subject: detail for subject, (_, detail) in engine.report.items()}
            assert report["server"].startswith("vllm") and engine.info.context == 512
            assert caps.token_ids and caps.continuation and caps.seeds and caps.structured and caps.logprobs == 20

            killed = list[str]()

            def cut(event: Event) -> None:
                if isinstance(event, Delta) and not killed:
                    killed.extend(replica.name for replica in engine.replicas if replica.running)
                    kill(servers[killed[0]])

            limits = Limits(tokens=N * TOKENS)
            outcome = await solve(SelfConsistency(n=N), Problem("2 + 3?"), engine, limits=limits, publish=cut)
            paths = [node for node in outcome.trace.nodes if node.role == "path"]
            assert len(killed) == 1 and len(paths) == N and all(node.tokens for node in paths)
            assert outcome.usage.completion == sum(node.tokens for node in paths) <= N * TOKENS
            assert [state.name for state in (await engine.health()).replicas if not state.up] == killed
        finally:
            await engine.close()
