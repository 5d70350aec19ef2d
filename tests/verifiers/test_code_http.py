"""The `code` verifier over HTTP: it chooses, and where it may not run nothing is generated."""

from __future__ import annotations

from pathlib import Path as File

import httpx2
import pytest

from reason_engine.cli.serve import start
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.serving.app import create_app
from reason_engine.settings import Settings
from reason_engine.verifiers import sandbox as host
from tests.verifiers.sandboxed import needs_limits
from tests.verifiers.test_code import refused


def wrong_then_right(prompt: str, seed: int, index: int) -> str:
    return f"```python\ndef add(a, b):\n    return a {'+' if index == 2 else '-'} b\n```"


async def asked(settings: Settings, **params: object) -> tuple[httpx2.Response, Scripted]:
    engine = Scripted(wrong_then_right)
    await engine.start()
    transport = httpx2.ASGITransport(app=create_app(engine, settings=settings))
    body = {
        "messages": [{"role": "user", "content": "Write add(a, b)."}],
        "reasoning": {"strategy": "best-of-n", "n": 4, "verifier": {"name": "code", "params": params}},
    }
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        return await http.post("/v1/chat/completions", json=body), engine


@needs_limits
async def test_over_http_the_program_that_passes_is_chosen() -> None:
    reply, _ = await asked(Settings(code_execution=True), tests=["assert add(2, 2) == 4", "assert add(0, 0) == 0"])
    assert reply.status_code == 200, reply.text
    assert "return a + b" in reply.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("on", "params", "param", "said"),
    [
        (False, {"tests": ["pass"]}, "reasoning.verifier", "reason serve --allow-code"),
        (True, {}, "reasoning.verifier.params.tests", "unit tests"),
        (True, {"tests": ["pass"], "seconds": 99}, "reasoning.verifier.params.seconds", "30"),
    ],
)
async def test_over_http_nothing_is_generated_for_what_is_refused(
    on: bool, params: dict[str, object], param: str, said: str
) -> None:
    reply, engine = await asked(Settings(code_execution=on), **params)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param) and said in error["message"]
    assert (await engine.health()).generated_tokens == 0


def test_a_server_that_cannot_limit_does_not_start(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "supervisor.py", "landlock: Function not implemented")
    monkeypatch.setattr(host, "SUPERVISOR", tmp_path / "supervisor.py")
    with pytest.raises(SetupError, match=r"--allow-code: .*landlock: Function not implemented"):
        start(Settings(engine="scripted", code_execution=True, port=0))
