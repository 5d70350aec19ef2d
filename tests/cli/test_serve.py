"""`reason serve`: the banner is true, its line works, and the end is clean."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from reason_engine.cli.serve import banner, start
from reason_engine.engines.open import process_environment
from reason_engine.engines.vllm import release as vllm_release
from reason_engine.errors import SetupError
from reason_engine.settings import Settings
from tests.cli.conftest import serve, stop
from tests.engines.adapter_files import write_prompt


def test_the_banner_names_the_model_and_the_address(server) -> None:
    assert f"is ready on {server.url}/v1" in server.banner


def test_the_line_to_paste_answers(server) -> None:
    line = next(line for line in server.banner.splitlines() if line.startswith("  curl "))
    _, url, flag, header, data, body = shlex.split(line)
    assert (flag, data) == ("-H", "-d")
    name, _, value = header.partition(": ")
    request = urllib.request.Request(url, body.encode(), {name: value})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    assert answer["reason"]["strategy"] == "tree-of-thoughts"


def test_the_openai_client_is_served(server) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        model = client.models.list().data[0].id
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say it"}])
    assert answer.choices[0].message.content == "Answer: Say it"


def test_a_taken_port_is_one_line(reason) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = reason("serve", "--engine", "scripted", "--port", str(port))
    assert ran.code == 2
    assert f"cannot bind 127.0.0.1:{port}" in ran.err and "--port" in ran.err


def test_a_key_from_the_command_line_is_asked_for() -> None:
    running = serve("--engine", "scripted", "--api-key", "secret", "--strategy", "chain-of-thought")
    try:
        assert "$REASON_API_KEY" in running.banner and "secret" not in running.banner
        with OpenAI(base_url=f"{running.url}/v1", api_key="secret", max_retries=0) as client:
            model = client.models.list().data[0].id
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say it"}])
        assert answer.model_extra and answer.model_extra["reason"]["strategy"] == "chain-of-thought"
    finally:
        assert stop(running) == 0


def test_adapters_are_loaded_before_it_is_ready() -> None:
    running = serve("--engine", "scripted", "--adapter", "mine=/its/folder")
    try:
        with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            assert "mine" in [model.id for model in client.models.list().data]
            answer = client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "Say it"}])
        assert answer.choices[0].message.content == "Answer: Say it"
    finally:
        assert stop(running) == 0


def test_an_adapter_that_cannot_be_loaded_ends_the_server_with_one_line() -> None:
    with pytest.raises(AssertionError) as caught:
        serve("--adapter", "mine=/no/such/adapter")
    said = str(caught.value)
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("reason: /no/such/adapter"), said


def test_bad_adapters_are_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    pickled, learned = tmp_path / "pickled", tmp_path / "learned"
    write_prompt(learned, 1)
    write_prompt(pickled, 1)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"adapters": {"direct": str(learned)}}, "--adapter direct=.* is a strategy"),
        ({"adapters": {"reason-nano": str(learned)}}, "--adapter reason-nano=.* is the served model"),
        ({"adapters": {"a b": str(learned)}}, "--adapter a b=.*letters, digits"),
        ({"adapters": {"a": str(pickled)}}, "only safetensors"),
        ({"adapters_dir": (tmp_path / "no",)}, "--adapters-dir .*no such folder"),
        ({"engine": "openai", "upstream_url": "http://127.0.0.1:1/v1", "adapters": {"a": "x"}}, "its own server"),
    ]
    for given, said in cases:
        with pytest.raises(SetupError, match=said):
            start(Settings(**{"engine": "embedded", "port": 0, **given}))


def test_nothing_named_serves_the_bundled_model_on_the_embedded_engine() -> None:
    running = serve("--threads", "1", "--engine", "embedded")
    try:
        assert "reason-nano is ready" in running.banner and "demonstration model" in running.banner
        with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(
                model="reason-nano",
                messages=[{"role": "user", "content": "Say it"}],
                extra_body={"reasoning": {"strategy": "self-consistency", "n": 4}, "budget": {"tokens": 40}},
            )
        assert answer.usage and 0 < answer.usage.completion_tokens <= 40
    finally:
        assert stop(running) == 0


def test_the_banner_is_honest_about_the_bundled_model() -> None:
    said = banner(Settings(served_name="reason-nano"), "embedded", "", 8000)
    assert "demonstration model" in said
    said = banner(Settings(model="owner/other", served_name="other"), "vllm", "A model of theirs.", 8000)
    assert "demonstration model" not in said and "A model of theirs." in said


def test_the_banner_brackets_an_ipv6_address() -> None:
    assert "http://[::1]:8000/v1" in banner(Settings(host="::1"), "embedded", "", 8000)
    assert "http://127.0.0.1:8000/v1" in banner(Settings(host="::", open=True), "embedded", "", 8000)


def test_vllm_is_started_anew_where_its_libraries_are_not_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Restarted(Exception):
        pass

    def restart(path: str, argv: list[str], environment: dict[str, str]) -> None:
        raise Restarted(path, argv, environment["LD_PRELOAD"])

    monkeypatch.setattr(vllm_release, "preload_environment", lambda: {"LD_PRELOAD": "/lib/one.so"})
    monkeypatch.setattr(os, "execve", restart)
    with pytest.raises(Restarted) as started:
        start(Settings(engine="vllm"))
    assert started.value.args == (sys.executable, sys.orig_argv, "/lib/one.so")
    assert process_environment("embedded") == {}
