"""The shape of the code: short files, small folders, public names across packages, no circles.

Imports are read from the source, also those inside functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TREES = {"reason_engine": "reason_engine", "cli": "reason_engine.cli", "serving": "reason_engine.serving"}
"""Folders of code, with the name that each is imported by."""

LINES, MEDIAN, MODULES, DEPTH = 400, 140, 16, 3
"""Most lines of a file and of the median file; most modules of a folder; folders one below another."""


def sources(root: Path) -> dict[str, Path]:
    """Every module by its dotted name."""
    found: dict[str, Path] = {}
    for folder, package in TREES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[tuple[str, str | None]]:
    """(module, name taken from it or None for the module itself) of every import of the package's own modules."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                yield (module, None) if module in known else (node.module, alias.name)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def underscored(root: Path) -> list[str]:
    """Imports of a private name, or of a private module, from another module."""
    known = sources(root)
    return sorted(
        f"{here} imports {'.'.join(filter(None, (there, name)))}"
        for here, path in known.items()
        for there, name in imports(path, known)
        if any(is_private(part) for part in (*there.split("."), name or ""))
    )


def circles(root: Path) -> list[list[str]]:
    """Modules that import one another, directly or round about (Tarjan 1972: strongly connected components)."""
    known = sources(root)
    edges = {here: sorted({there for there, _ in imports(path, known)} - {here}) for here, path in known.items()}
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in edges[node]:
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            members = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(members) > 1:
                found.append(sorted(members))

    for node in edges:
        if node not in number:
            visit(node)
    return sorted(found)


def lines_of(root: Path) -> dict[str, int]:
    """Lines of every file."""
    return {
        path.relative_to(root).as_posix(): len(path.read_text("utf-8").splitlines()) for path in sources(root).values()
    }


def crowded(root: Path) -> dict[str, int]:
    """Folders with more modules than MODULES."""
    counts: dict[str, int] = {}
    for path in sources(root).values():
        folder = path.parent.relative_to(root).as_posix()
        counts[folder] = counts.get(folder, 0) + 1
    return {folder: count for folder, count in counts.items() if count > MODULES}


def test_no_file_is_too_long() -> None:
    assert {name: lines for name, lines in lines_of(ROOT).items() if lines > LINES} == {}


def test_the_median_file_is_short() -> None:
    assert statistics.median(lines_of(ROOT).values()) <= MEDIAN


def test_no_folder_is_crowded() -> None:
    assert crowded(ROOT) == {}


def test_folders_are_not_nested_deeply() -> None:
    depths = {path: len(path.relative_to(ROOT).parts) - 2 for path in sources(ROOT).values()}
    assert [path for path, depth in depths.items() if depth > DEPTH] == []


def test_no_private_name_crosses_a_module() -> None:
    assert underscored(ROOT) == []


def test_no_modules_import_one_another() -> None:
    assert circles(ROOT) == []


def test_every_folder_says_what_it_is() -> None:
    for name, path in sources(ROOT).items():
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{name} has no docstring"


def plant(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "from reason_engine.data.rows import _parse",
        "from reason_engine.data import _rows",
        "def f():\n    from reason_engine.data._rows import parse",
        "import reason_engine.data._rows",
    ],
)
def test_a_planted_private_import_is_found(tmp_path: Path, line: str) -> None:
    plant(tmp_path, {
        "reason_engine/data/__init__.py": "",
        "reason_engine/data/rows.py": "",
        "reason_engine/data/_rows.py": "",
        "serving/chat.py": line,
    })  # fmt: skip
    assert len(underscored(tmp_path)) == 1


def test_public_imports_pass(tmp_path: Path) -> None:
    plant(tmp_path, {
        "reason_engine/__init__.py": "__version__ = '1'",
        "reason_engine/data/rows.py": "from __future__ import annotations",
        "serving/chat.py": "from reason_engine.data.rows import parse\nfrom reason_engine import __version__",
    })  # fmt: skip
    assert underscored(tmp_path) == []


def test_planted_circles_are_found(tmp_path: Path) -> None:
    plant(tmp_path, {
        "reason_engine/a.py": "from reason_engine.b import x",
        "reason_engine/b.py": "def f():\n    from reason_engine.c import x",
        "reason_engine/c.py": "if TYPE_CHECKING:\n    from reason_engine.a import x",
        "reason_engine/d.py": "from reason_engine.a import x",
    })  # fmt: skip
    assert circles(tmp_path) == [["reason_engine.a", "reason_engine.b", "reason_engine.c"]]


def test_a_planted_crowd_is_found(tmp_path: Path) -> None:
    plant(tmp_path, {f"serving/m{number}.py": "" for number in range(MODULES + 1)})
    assert crowded(tmp_path) == {"serving": MODULES + 1}
