"""The wheel: one top-level name, every package, the bundled model; and the list of packages is not out of date."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"reason_engine": "reason_engine", "cli": "reason_engine.cli", "serving": "reason_engine.serving"}


def config() -> dict[str, dict[str, dict[str, list[str]]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def packages_on_disk() -> list[str]:
    found: list[str] = []
    for folder, name in FOLDERS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.append(".".join((name, *inner)))
    return sorted(found)


def test_listed_packages_are_the_folders() -> None:
    assert sorted(config()["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_module_lies_in_a_package() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.relative_to(ROOT)} would be missing from the wheel"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built from a copy of the tree, so that the build leaves nothing behind."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, copy / name
        if source.is_file() and not name.startswith(("tests/", "docs/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return zipfile.ZipFile(next(out.glob("*.whl"))).namelist()


def test_the_wheel_has_one_top_level_name(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel if ".dist-info/" not in name} == {"reason_engine"}


def test_the_wheel_holds_every_module(wheel: list[str]) -> None:
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            assert f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}" in wheel


def test_the_wheel_holds_the_bundled_model(wheel: list[str]) -> None:
    nano = {name.removeprefix("reason_engine/models/nano/") for name in wheel if "/models/nano/" in name}
    assert {"config.json", "model.safetensors", "tokenizer.json", "reason.json"} <= nano


def test_the_wheel_holds_the_type_marker_and_the_licence(wheel: list[str]) -> None:
    assert "reason_engine/py.typed" in wheel
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_data_files_beside_the_code_are_in_the_wheel(wheel: list[str]) -> None:
    """Whatever lies in a package and is no module must be named as package data."""
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.parent.name != "__pycache__" and path.suffix != ".py":
                assert f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}" in wheel


def test_every_requirement_of_the_core_is_pinned() -> None:
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {requirement.split(">")[0].split("<")[0].split("=")[0].lower() for requirement in project["dependencies"]}
    assert names <= pins
