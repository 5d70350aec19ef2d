"""Settings: file < environment < flag, and every mistake names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.errors import SetupError
from reason_engine.settings import Settings, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "reason.yaml"
    path.write_text("port: 1001\nmax_tokens: 11\nstrategy: direct\nvllm: {seed: 3}\n")
    return path


def test_flag_beats_environment_beats_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_PORT", "1002")
    monkeypatch.setenv("REASON_MAX_TOKENS", "12")
    settings = load_settings({"port": 1003, "model": None}, file)
    assert (settings.port, settings.max_tokens, settings.strategy) == (1003, 12, "direct")
    assert settings.vllm == {"seed": 3}
    assert settings.model is None


def test_an_environment_value_at_its_default_still_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_PORT", "8000")
    assert load_settings({}, file).port == 8000


def test_keys_come_comma_separated_and_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_API_KEYS", "k-alpha, k-beta,")
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["k-alpha", "k-beta"]
    assert settings.protected
    assert "alpha" not in repr(settings) + settings.model_dump_json()


def test_upstreams_come_as_one_text_or_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().upstream_url == load_settings({"upstream_url": None}).upstream_url == ()
    assert load_settings({"upstream_url": "http://a/v1"}).upstream_url == ("http://a/v1",)
    assert load_settings({"upstream_url": ["http://a/v1", "http://b/v1"]}).upstream_url == (
        "http://a/v1",
        "http://b/v1",
    )
    monkeypatch.setenv("REASON_UPSTREAM_URL", "http://a/v1, http://b/v1")
    assert load_settings().upstream_url == ("http://a/v1", "http://b/v1")


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_PORT", "")
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"prt": 1}, "unknown setting 'prt'; did you mean 'port'?"),
        ({"port": 70_000}, "'port': Input should be less than or equal to 65535"),
        ({"max_tokens": 0}, "'max_tokens'"),
        ({"max_seconds": 0}, "'max_seconds'"),
        ({"log_level": "loud"}, "'log_level'"),
        ({"adapters": {"a:b": "x"}}, "adapter name 'a:b'"),
        ({"adapters": {"": "x"}}, "adapter name ''"),
        ({"host": ""}, "'host'"),
        ({"vllm": 3}, "'vllm'"),
    ],
)
def test_a_mistake_names_its_key(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SetupError) as caught:
        load_settings(flags)
    assert said in str(caught.value)


def test_a_mistake_in_the_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_VLLM", "not json")
    with pytest.raises(SetupError, match="vllm"):
        load_settings()
    monkeypatch.setenv("REASON_VLLM", "{}")
    monkeypatch.setenv("REASON_PORT", "ten")
    with pytest.raises(SetupError, match="'port'"):
        load_settings()


@pytest.mark.parametrize("content", ["- a\n- b\n", "port: [", "\x00", "just words"])
def test_a_bad_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(SetupError, match=r"bad\.yaml"):
        load_settings({}, path)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.yaml: No such file"):
        load_settings({}, tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(SetupError, match=r"bytes\.yaml"):
        load_settings({}, tmp_path / "bytes.yaml")


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_settings({}, tmp_path / "empty.yaml") == Settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_beyond_this_machine_a_key_is_needed(host: str) -> None:
    with pytest.raises(SetupError, match="--api-key"):
        load_settings({"host": host})
    assert load_settings({"host": host, "open": True}).host == host
    assert load_settings({"host": host, "api_keys": "secret"}).protected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    assert not load_settings({"host": host}).protected


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_no_dotenv_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("REASON_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().port == 8000
