"""Every module can be imported where neither torch nor vllm is installed: heavy packages load inside functions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"reason_engine": "reason_engine", "cli": "reason_engine.cli", "serving": "reason_engine.serving"}

BLOCKED = (
    "torch",
    "vllm",
    "transformers",
    "matplotlib",
    "math_verify",
    "sympy",
    "peft",
    "trl",
    "datasets",
    "openai",
    "bm25s",
    "pypdf",
)

IMPORT_ALL = """
import importlib, sys, traceback
blocked, names = sys.argv[1].split(","), sys.argv[2].split(",")
for name in blocked:
    sys.modules[name] = None
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        print(f"--- {name}")
        traceback.print_exc(file=sys.stdout)
"""

HELP = """
import sys
for name in sys.argv.pop().split(","):
    sys.modules[name] = None
from reason_engine.cli.main import main
main()
"""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found: dict[str, Path] = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in inner if part != "__init__")))] = path
    return found


def torch_modules() -> set[str]:
    """Modules that import torch at their top: parts of a heavy package that only its other parts import."""
    heavy = ("import torch", "from torch")
    return {
        name
        for name, path in modules().items()
        if any(line.startswith(heavy) for line in path.read_text("utf-8").splitlines())
    }


def test_modules_import_without_heavy_packages() -> None:
    light = sorted(modules().keys() - torch_modules())
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(BLOCKED), ",".join(light)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout == ""


def test_torch_at_the_top_stays_in_its_corner() -> None:
    """Only these folders may hold a module that imports torch when it is imported."""
    corners = ("reason_engine.engines.embedded.", "reason_engine.training.", "reason_engine.compression.")
    assert [name for name in torch_modules() if not name.startswith(corners)] == []


def test_help_needs_nothing_heavy() -> None:
    blocked = ",".join((*BLOCKED, "pydantic_settings", "fastapi", "uvicorn", "numpy"))
    out = subprocess.run([sys.executable, "-c", HELP, "--help", blocked], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "serve" in out.stdout
