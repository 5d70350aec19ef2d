"""GPTQ: refusals before anything is loaded, the library's process and its failures; the real thing is slow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from reason_engine.cli.main import main
from reason_engine.compression.quantize import gptq
from reason_engine.compression.quantize.gptq import QuantiseError, quantise
from reason_engine.compression.run import prepare, run
from reason_engine.errors import MissingExtra, SetupError
from tests.models import write_model

MIXTURE = "mixture=[{family: words, share: 1}]"
SETTINGS = ["report=false", MIXTURE, "group=32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("m") / "tiny")


def test_without_the_extra_the_line_that_installs_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> str:
        raise gptq.PackageNotFoundError(name)

    monkeypatch.setattr(gptq, "version", missing)
    with pytest.raises(MissingExtra, match=r"gptqmodel is not installed; .* \"reason-engine\[compress\]\""):
        run("gptq", prepare("gptq", None, SETTINGS), str(model), tmp_path / "o")
    words = ["reason", "compress", "gptq", str(model), str(tmp_path / "o"), "--set", MIXTURE, "--set", "group=32"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["report=false"], "name data or a mixture"),
        ([*SETTINGS, "bits=3"], "bits: Input should be 4 or 8"),
        ([*SETTINGS, "group=48"], "group: Input should be 32, 64 or 128"),
    ],
)
def test_bad_keys(settings: list[str], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        prepare("gptq", None, settings)


def test_8_bits_want_a_gpu(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "has_gpu", lambda: False)
    with pytest.raises(SetupError, match="served by vLLM on a GPU only, and there is none here"):
        run("gptq", prepare("gptq", None, [*SETTINGS, "bits=8"]), str(model), tmp_path / "o")
    assert gptq.Gptq().served(prepare("gptq", None, [*SETTINGS, "bits=8"])).embedded == "no"


def test_widths_that_no_group_fits(tmp_path: Path) -> None:
    odd = write_model(tmp_path / "odd", hidden_size=48, intermediate_size=96)
    with pytest.raises(SetupError, match="is 48 wide, which is no multiple of 32"):
        run("gptq", prepare("gptq", None, SETTINGS), str(odd), tmp_path / "o")


WORKER = """
import json, os, sys
job = json.load(sys.stdin)
print(json.dumps({"stage": "quantise", "done": 1, "total": 1}), flush=True)
sys.stderr.write("\\x1b[32mloading\\x1b[0m\\rTraceback (most recent call last):\\n  File x\\n")
sys.stderr.write("ValueError: " + os.environ["GPTQMODEL_CPU_WORKERS"] + job["why"] + "\\nINFO bye\\n")
sys.exit(job["code"])
"""


@pytest.mark.parametrize("code", [0, 1])
def test_the_process_is_heard_and_its_error_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("GPTQMODEL_CPU_WORKERS", raising=False)
    monkeypatch.setattr(gptq, "WORKER", "worker")
    said: list[Any] = []
    if code:
        with pytest.raises(QuantiseError, match=r"^gptqmodel: ValueError: 2 no luck$"):
            quantise({"code": code, "why": " no luck"}, said.append)
    else:
        quantise({"code": code, "why": ""}, said.append)
    assert said == [{"stage": "quantise", "done": 1, "total": 1}]
