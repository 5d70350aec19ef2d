"""Adapters on a running server over vLLM: loaded, mixed with the base in one batch, unloaded while others run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2

from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.serving.app import create_app
from reason_engine.settings import Settings
from tests.engines.adapter_files import write_prompt
from tests.engines.vllm.test_variants import write_adapter
from tests.engines.vllm.tiny import MARKS

pytestmark = MARKS


async def test_adapters_come_and_go_while_others_run(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "adapters"
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_adapter(home / name, seed)
    write_adapter(home / "wide", 4, hidden=32)
    write_adapter(home / "deep", 4, layers=3)
    write_adapter(home / "high", 4, rank=128)
    write_prompt(home / "learned", 5)
    engine = VllmEngine(
        VllmConfig(model=str(folder), name="tiny", dtype="float32", enable_lora=True, max_loras=3, max_adapters=3)
    )
    await engine.start()
    app = create_app(engine, settings=Settings(served_name="tiny", adapters_dir=(home,)))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as http:

        async def load(name: str) -> httpx2.Response:
            return await http.post("/v1/adapters", json={"name": name, "path": name})

        async def ask(model: str, tokens: int = 100) -> str:
            body = {"model": model, "prompt": "hello", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
            got = await http.post("/v1/completions", json=body)
            assert got.status_code == 200, got.text
            return got.json()["choices"][0]["text"]

        names = ["tiny", "a", "b"]
        assert [(await load(name)).status_code for name in ("a", "b")] == [200, 200]
        alone = [await ask(name) for name in names]
        assert len(set(alone)) == 3
        listed = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
        assert {"a", "a:self-consistency", "b"} <= set(listed)

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(ask(name)) for name in (*names, *reversed(names))]
            while (await engine.health()).running < len(running):
                await asyncio.sleep(0)
            leave = group.create_task(http.delete("/v1/adapters/a"))
            assert (await load("c")).status_code == 200
            third = await ask("c", 8)
            assert (await http.delete("/v1/adapters/c")).status_code == 200
        assert [task.result() for task in running] == [*alone, *reversed(alone)]
        assert leave.result().status_code == 200 and engine.adapters() == ("b",)
        assert third not in [text[: len(third)] for text in alone]

        for name, said in {
            "wide": "does not fit this model", "deep": "cannot be applied", "high": "max_lora_rank, 64",
            "learned": "prompt tuning.*embedded.*peft: lora",
        }.items():  # fmt: skip
            got = await load(name)
            error = got.json()["error"]
            assert got.status_code == 400 and error["param"] == "path"
            assert all(part in error["message"] for part in said.split(".*")), error
        assert (await load("a")).status_code == 200
        assert [await ask(name) for name in names] == alone
        refused = await http.post("/v1/completions", json={"model": "a", "prompt": "x", "prompt_logprobs": 1})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "prompt_logprobs"
        echoed = {"model": "a", "prompt": "x", "echo": True, "logprobs": 1}
        assert (await http.post("/v1/completions", json=echoed)).status_code == 400
        assert await ask("b") == alone[2], "and the engine lives"
    await app.state.service.equality.close()
    await engine.close()
