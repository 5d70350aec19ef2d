"""Step models on vLLM's own servers give what the embedded engine gives, which is held against transformers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.types import Message, ScoreRequest
from tests.engines.vllm.tiny import MARKS
from tests.rewards import MERGES, write_step_model

pytestmark = MARKS
POOLING = ("--runner", "pooling")
MARK = 256 + len(MERGES)
"""Of `<extra_0>` in the tokenizer made here; vLLM takes Qwen's own for granted."""
STEPS = ("--pooler-config", json.dumps({"tok_pooling_type": "STEP", "step_tag_id": MARK}))
SERVED = {"trl-newline": POOLING, "qwen-prm": (*POOLING, *STEPS)}
"""A row at each token, and a row at each mark."""


def serve(folder: Path, arguments: tuple[str, ...]) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port),
        "--dtype", "float32", "--max-model-len", "512", "--served-model-name", "tiny", "--enforce-eager", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    said = list[str]()
    try:
        for line in server.stderr:
            said.append(line)
            if "Application startup complete" in line:
                break
        else:
            raise AssertionError("".join(said[-40:]))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.mark.parametrize("format", SERVED)
def test_a_server_gives_what_the_embedded_engine_gives(format: str, tmp_path: Path, folder: Path) -> None:
    # vLLM's CPU attention wants heads of 32 at least, and takes their size from the width where it is Qwen2's
    model = write_step_model(tmp_path / "tiny", format, head_dim=32, num_attention_heads=2, num_key_value_heads=1)
    text, ends = "Two and three.\n\nThat is 5.\n\nSo 5.", ((14, 26, 33),)
    request = ScoreRequest("r", (text,), "token_reward", "r", (Message("user", "How many?"),), ends)

    async def here() -> tuple[float, ...]:
        engine = Embedded(folder, inline=True, rewards={"r": f"{model}#format={format}"})
        await engine.start()
        try:
            return (await engine.score(request)).values[0]
        finally:
            await engine.close()

    async def there(url: str) -> tuple[float, ...]:
        endpoints = Endpoints({"r": f"{url}#tiny&format={format}"})
        try:
            return (await endpoints.score(request)).values[0]
        finally:
            await endpoints.close()

    for url in serve(model, SERVED[format]):
        assert asyncio.run(there(url)) == pytest.approx(asyncio.run(here()), abs=2e-3)
