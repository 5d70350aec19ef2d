"""How the embedded engine begins and ends: its process, closing, checkpoints that cannot be served."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.messages import Failed
from reason_engine.engines.embedded.transport import ProcessTransport
from reason_engine.errors import EngineDead, ModelLoadError
from reason_engine.types import ChoiceRequest
from tests.engines.contract import WARM, read, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_death_of_the_process_ends_open_requests(tiny_qwen3: Path) -> None:
    engine = Embedded(tiny_qwen3)
    await engine.start()
    assert isinstance(engine._transport, ProcessTransport)
    pid = engine._transport.pid
    assert pid is not None

    async def until_dead() -> None:
        async for _ in engine.generate(request("p", replace(WARM, max_tokens=400), n=4)):
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(EngineDead):
        await until_dead()
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    with pytest.raises(EngineDead):
        await engine.choose(ChoiceRequest("x", "p", ("a",)))
    health = await engine.health()
    assert (health.ready, health.live, health.running) == (False, False, 0)
    await engine.close()


async def test_the_process_ends_with_its_parent(tiny_qwen3: Path) -> None:
    """Even while it loads, when it reads no messages."""
    script = (
        "import asyncio, os, sys\n"
        "from reason_engine.engines.embedded import Embedded\n"
        "async def main():\n"
        f"    engine = Embedded({str(tiny_qwen3)!r})\n"
        "    asyncio.create_task(engine.start())\n"
        "    while engine._transport.pid is None:\n"
        "        await asyncio.sleep(0)\n"
        "    assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
        "    print(engine._transport.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await parent.wait()
    descriptor = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    if descriptor is not None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        async with asyncio.timeout(30):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_closing_and_not_starting_refuse_requests(tiny_qwen3: Path) -> None:
    engine = Embedded(tiny_qwen3, inline=True)
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    await engine.start()
    await engine.close()
    with pytest.raises(EngineDead):
        await read(engine, request("p"))
    assert not (await engine.health()).ready


def bad_folders(good: Path, root: Path) -> dict[str, str]:
    """Folders that cannot be served, and what the message must name."""
    names = {
        "no-config": "config.json", "no-weights": "safetensors", "pickled": "pytorch_model.bin", "cut": "truncated",
        "noise": "model.safetensors", "empty": "model.safetensors", "shard": "model-2.safetensors",
        "outside": "outside", "no-tokenizer": "tokenizer.json", "profile": "config.json",
    }  # fmt: skip
    for name in names:
        shutil.copytree(good, root / name)
    whole = (good / "model.safetensors").read_bytes()
    (root / "no-config" / "config.json").unlink()
    (root / "no-weights" / "model.safetensors").unlink()
    (root / "pickled" / "model.safetensors").unlink()
    (root / "pickled" / "pytorch_model.bin").write_bytes(pickle.dumps({"x": 1}))
    (root / "cut" / "model.safetensors").write_bytes(whole[:-1000])
    (root / "noise" / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0" + b"{" * 5000)
    (root / "empty" / "model.safetensors").write_bytes(b"")
    for name, target in (("shard", "model-2.safetensors"), ("outside", "../x/model.safetensors")):
        (root / name / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": target}}))
    (root / "no-tokenizer" / "tokenizer.json").unlink()
    (root / "profile" / "config.json").write_text("[1]")
    return names


async def test_bad_checkpoints_fail_at_once_with_one_line(tiny_qwen3: Path, tmp_path: Path) -> None:
    for name, message in bad_folders(tiny_qwen3, tmp_path).items():
        with pytest.raises(ModelLoadError, match=message) as caught:
            Embedded(tmp_path / name)
        assert "\n" not in str(caught.value)
    for path in (tmp_path / "nowhere", tmp_path / "cut" / "config.json"):
        with pytest.raises(ModelLoadError, match=str(path)):
            Embedded(path)


async def test_weights_that_do_not_fit_the_config_fail_the_start(tiny_qwen3: Path, tmp_path: Path) -> None:
    for name, change, message in (("wide", {"num_hidden_layers": 3}, "layers.2"), ("odd", {"vocab_size": 7}, "embed")):
        folder = tmp_path / name
        shutil.copytree(tiny_qwen3, folder)
        config = json.loads((folder / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(config))
        engine = Embedded(folder, inline=True)
        with pytest.raises(ModelLoadError, match=message) as caught:
            await engine.start()
        await engine.close()
        # as a process tells it
        assert str(pickle.loads(pickle.dumps(Failed(caught.value))).error) == str(caught.value)


async def test_what_the_weights_are_multiplied_in_is_told(tiny_qwen3: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a model that is served in codes: by its information, its fingerprint and the log."""
    caplog.set_level("INFO")
    plain, small = Embedded(tiny_qwen3, inline=True), Embedded(tiny_qwen3, inline=True, weights="int8")
    assert small.info.precision == ""
    before = small.info.fingerprint
    for engine in (plain, small):
        await engine.start()
        await engine.close()
    assert (plain.info.precision, small.info.precision) == ("float32", "int8")
    assert plain.info.fingerprint == before
    assert small.info.fingerprint == before.replace("embedded-", "embedded-int8-")
    assert small.chosen is not None and small.chosen.precision == "int8" and small.chosen.dtype == "float32"
    assert "int8, cpu, 1 threads" in caplog.text


async def test_weights_that_cannot_be_kept_as_asked_end_the_start(tiny_qwen3: Path) -> None:
    engine = Embedded(tiny_qwen3, inline=True, weights="int3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelLoadError, match="weights 'int3' is not among auto, int8, full"):
        await engine.start()
    await engine.close()
