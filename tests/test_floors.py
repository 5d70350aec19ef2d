"""The building: a module imports only from floors below its own. This file is its map.

Imports are read from the source, also those inside functions; imports by string are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FLOORS = (
    "errors model_info types contracts answers registry settings policy profile progress jsonl steps",
    "engines verifiers knowledge store",
    "runtime",
    "strategies",
    "data",
    "evals",
    "recipes",
    "training",
    "compression",
    "loop",
    "serving",
    "cli",
)
BARRED = {("strategies", "engines"), ("strategies", "verifiers"), ("serving", "training")}
"""Downward imports that are not allowed either: strategies reach engines through their context only, and a server
does not train."""

MAPPED = ("cli", "serving")
"""Top-level folders that install under `reason_engine`."""

NOT_CODE = {"models"}


def floor_of(part: str) -> int | None:
    """Number of the floor of a part of the package; None where the map does not name it."""
    return next((number for number, names in enumerate(FLOORS) if part in names.split()), None)


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """(part, file) of every module; the package's own `__init__` belongs to no floor, since its imports are lazy."""
    for path in sorted((root / "reason_engine").rglob("*.py")):
        part = path.relative_to(root / "reason_engine").parts[0].removesuffix(".py")
        if part != "__init__" and part not in NOT_CODE:
            yield part, path
    for part in MAPPED:
        for path in sorted((root / part).rglob("*.py")):
            yield part, path


def imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports; a relative import comes out with its leading dots."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "reason_engine":
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def public_names(root: Path) -> dict[str, str]:
    """Names that `reason_engine` itself hands out, with the part that each comes from."""
    init = root / "reason_engine" / "__init__.py"
    if not init.is_file():
        return {}
    for node in ast.parse(init.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOME":
            return {name: home.split(".")[0] for name, home in ast.literal_eval(node.value).items()}
    return {}


def faults(root: Path) -> list[str]:
    """Every import that the map does not allow, and every module that it does not name."""
    wrong: set[str] = set()
    public = public_names(root)
    for here, path in modules(root):
        name = path.relative_to(root).as_posix()
        low = floor_of(here)
        if low is None:
            wrong.add(f"{name} stands on no floor")
            continue
        for module in imported(path):
            head, _, rest = module.partition(".")
            if module.startswith("."):
                wrong.add(f"{name} has a relative import")
            elif head in MAPPED:
                wrong.add(f"{name} imports the bare name {head}")
            elif head == "reason_engine" and rest:
                there = rest.split(".")[0]
                there = public.get(there, there)
                high = floor_of(there)
                if there == "__version__" or here == there:
                    continue
                if high is None:
                    wrong.add(f"{name} imports reason_engine.{there}, which stands on no floor")
                elif high > low or (high == low and low > 0) or (here, there) in BARRED:
                    wrong.add(f"{name} imports reason_engine.{there}")
    return sorted(wrong)


def test_the_building_stands() -> None:
    assert faults(ROOT) == []


PLANTED = {
    "reason_engine/runtime/solve.py": ("from reason_engine import strategies", "imports reason_engine.strategies"),
    "reason_engine/strategies/mcts.py": ("import reason_engine.engines.vllm", "imports reason_engine.engines"),
    "reason_engine/strategies/vote.py": ("from reason_engine.verifiers import v", "imports reason_engine.verifiers"),
    "reason_engine/engines/vllm.py": ("from reason_engine.verifiers import x", "imports reason_engine.verifiers"),
    "reason_engine/data/words.py": ("from reason_engine.evals.run import run", "imports reason_engine.evals"),
    "reason_engine/types.py": ("from reason_engine.store import rows", "imports reason_engine.store"),
    "serving/app.py": ("from reason_engine.training.supervised.sft import train", "imports reason_engine.training"),
    "serving/chat.py": ("def f():\n    import cli", "imports the bare name cli"),
    "cli/serve.py": ("from serving.app import app", "imports the bare name serving"),
    "reason_engine/runtime/trace.py": ("from . import events", "has a relative import"),
    "reason_engine/helpers.py": ("", "stands on no floor"),
    "reason_engine/runtime/run.py": ("from reason_engine import helpers", "imports reason_engine.helpers"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(tmp_path: Path, name: str) -> None:
    source, fault = PLANTED[name]
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [line for line in faults(tmp_path) if line.startswith(f"{name} {fault}")]


def test_downward_imports_pass(tmp_path: Path) -> None:
    good = {
        "cli/main.py": "from reason_engine import serving\nfrom reason_engine.types import Answer",
        "reason_engine/strategies/vote.py": "from reason_engine.runtime.context import Context\nimport asyncio",
        "reason_engine/errors.py": "from reason_engine.types import Usage",
    }
    for name, source in good.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert faults(tmp_path) == []
