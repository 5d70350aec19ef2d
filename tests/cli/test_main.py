"""The command line as a whole: quick help, one clear line an error, the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.cli import main as cli_main
from reason_engine.errors import EngineError

COMMANDS = ("chat", "doctor", "models", "serve", "solve", "strategies")


def test_help_lists_the_commands(reason) -> None:
    ran = reason("--help")
    assert ran.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in ran.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(reason, command: str) -> None:
    ran = reason(command, "--help")
    assert ran.code == 0 and ran.out.startswith(f"Usage: reason {command}")


def test_version(reason) -> None:
    from reason_engine import __version__

    assert reason("--version").out.strip() == __version__


@pytest.mark.parametrize(
    "words",
    [
        ("nosuch",),
        ("solve",),
        ("solve", "q", "--nosuch"),
        ("solve", "q", "--tokens", "0"),
        ("solve", "q", "--tokens", "many"),
        ("solve", "q", "--seconds", "-1"),
        ("serve", "--port", "70000"),
    ],
)
def test_wrong_usage_exits_2(reason, words: tuple[str, ...]) -> None:
    assert reason(*words).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("solve", "q", "--strategy", "tree-of-thought"), "did you mean 'tree-of-thoughts'?"),
        (("solve", "q", "-s", "self-consistency", "--set", "n=999"), "reasoning.n"),
        (("solve", "q", "-s", "self-consistency", "--set", "m=9"), "reasoning.m"),
        (("solve", "q", "-s", "self-consistency", "--set", "n"), "expected key=value"),
        (("solve", "q", "-s", "self-consistency", "--set", "n=1", "--set", "n=2"), "given twice"),
        (("solve", "q", "--model", "x", "--url", "http://127.0.0.1:1"), "exclude each other"),
        (("solve", "q", "--model", "/no/such/model"), "/no/such/model: no such model folder"),
        (("solve", "q", "--engine", "nosuch"), "no engine named 'nosuch'"),
        (("solve", "q", "--engine", "openai"), "--upstream-url"),
        (("chat", "--strategy", "nosuch"), "no strategy named 'nosuch'"),
        (("strategies", "nosuch"), "no strategy named 'nosuch'"),
        (("serve", "/no/such/model"), "/no/such/model: no such model folder"),
        (("serve", "--engine", "nosuch"), "no engine named 'nosuch'"),
        (("serve", "--engine", "scripted", "--strategy", "nosuch"), "no strategy named 'nosuch'"),
        (("serve", "--host", "0.0.0.0"), "--api-key"),
        (("serve", "--adapter", "x"), "expected NAME=PATH, or a name of those beside the weights (grpo)"),
        (("serve", "--adapter", "=x"), "expected NAME=PATH"),
        (("serve", "--adapter", "a:b=x"), "adapter name 'a:b'"),
        (("serve", "--config", "/no/such.yaml"), "/no/such.yaml: No such file"),
    ],
)
def test_wrong_input_is_one_line_and_exits_2(reason, words: tuple[str, ...], said: str) -> None:
    ran = reason(*words)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.startswith("reason: ") and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "config.json: not found"),
        ({"config.json": b"{"}, "config.json: not JSON"),
        ({"config.json": b"{}"}, "has no *.safetensors file"),
        ({"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."}, "pickled weights are never loaded"),
        ({"config.json": b"{}", "model.safetensors": b"\xff" * 64}, "corrupt or truncated"),
        ({"config.json": b"{}", "model.safetensors": b""}, "corrupt or truncated"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_exits_2(reason, tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for command in (("serve", str(tmp_path)), ("solve", "q", "--model", str(tmp_path))):
        ran = reason(*command)
        assert ran.code == 2
        assert said in ran.err and ran.err.count("\n") == 1


def test_a_failure_that_is_not_the_users_exits_1(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prog_name: str) -> None:
        raise EngineError("it\nbroke")

    monkeypatch.setattr(cli_main, "build", lambda: broken)
    ran = reason()
    assert (ran.code, ran.err) == (1, "reason: EngineError: it broke\n")


def test_ctrl_c_exits_130(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(prog_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_main, "build", lambda: interrupted)
    assert reason().code == 130


@pytest.mark.parametrize("command", [("serve", "--engine", "scripted"), ("solve", "q", "--engine", "scripted")])
def test_a_model_for_documents_that_is_not_there(reason, tmp_path: Path, monkeypatch, command) -> None:
    monkeypatch.setenv("REASON_KNOWLEDGE_MODEL", "nothing")
    ran = reason(*command, "--knowledge", str(tmp_path))
    assert ran.code == 2 and "reason: knowledge_model 'nothing': no model of that name embeds" in ran.err
    assert "Traceback" not in ran.err
