"""docs/results holds tables and figures, each with the command that makes it again; no tracked file is large."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from reason_engine.strategies import strategies

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
PAGES = sorted(page for page in RESULTS.rglob("*.md") if page != RESULTS / "README.md")
LARGEST = 300_000
WEIGHTS = "reason_engine/models/"
START = re.compile(
    r"""(\w+=(?:"[^"]*"|\S+)\ )*                      # environment
        (reason\ \w|(\S*/)?python\ (-m\ \w|docs/)|(ba)?sh\ \S|pytest\ )""",
    re.VERBOSE,
)


def name(page: Path) -> str:
    return page.relative_to(RESULTS).as_posix()


def tracked() -> list[str]:
    """What git keeps. Skips where this is no checkout."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout: which files are tracked is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file()]


def commands(text: str) -> list[str]:
    """The commands in a page's code: blocks (lines continued by a backslash joined) and spans."""
    fences = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    .*$", rest, re.MULTILINE)
    lines = "\n".join([*fences, *indented]).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`]+)`", re.sub(r"^    .*$", "", rest, flags=re.MULTILINE))
    found = (re.sub(r"\s+#.*$", "", " ".join(code.split())) for code in [*lines, *spans])
    return [code for code in found if START.match(code)]


def every_command() -> list[str]:
    pages = [*PAGES, RESULTS / "README.md"]
    return sorted({command for page in pages for command in commands(page.read_text("utf-8"))})


@cache
def options_of(*words: str) -> str:
    """The help of `reason WORDS`; empty where there is no such command."""
    ran = subprocess.run(
        [sys.executable, "-m", "reason_engine.cli.main", *words, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
    )
    return ran.stdout if ran.returncode == 0 else ""


def test_no_tracked_file_is_large() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in tracked() if not path.startswith(WEIGHTS)}
    assert sizes
    assert {path: size for path, size in sizes.items() if size > LARGEST} == {}


def test_results_are_tables_and_figures() -> None:
    kept = [path for path in tracked() if path.startswith("docs/results/")]
    assert [path for path in kept if Path(path).suffix not in {".md", ".png"}] == ["docs/results/.gitignore"]


def test_the_results_page_names_every_page() -> None:
    text = (RESULTS / "README.md").read_text("utf-8")
    named = set(re.findall(r"\]\(([\w/.-]+\.md)\)", text)) - {"../recipes/README.md"}
    assert named == {name(page) for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_page_has_its_command(page: Path) -> None:
    """Before or in its first table, or anywhere on a page without one."""
    text = page.read_text("utf-8")
    table = re.search(r"^\|.*?(?=\n[^|]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert commands(text[: table.end()] if table else text), f"{name(page)}: no command beside its table"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name == "report.md"], ids=name)
def test_a_report_has_one_command_that_writes_it(page: Path) -> None:
    text = page.read_text("utf-8")
    (line,) = re.findall(r"^- commands: (.*)$", text, re.MULTILINE)
    (command,) = commands(line)
    assert f"--out docs/results/{page.parent.name}" in command
    asked = re.findall(r" -s (\S+)", command)
    for table in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| (\S+) \| \d+ \|", table, re.MULTILINE)
        assert rows == asked, f"{name(page)}: {table.splitlines()[0]}"
    assert "](report.png)" in text and (page.parent / "report.png").is_file()


@pytest.mark.parametrize("command", [c for c in every_command() if re.search(r"(^| )reason ", c)])
def test_the_commands_of_this_package_exist(command: str) -> None:
    words = command[re.search(r"(^| )reason ", command).end() :].split()  # pyright: ignore[reportOptionalMemberAccess]
    path = words[: 2 if words[0] in {"compress", "data", "plan", "train"} else 1]
    help_text = options_of(*path)
    assert help_text, f"no command: reason {' '.join(path)}"
    for option in {word for word in words if re.fullmatch(r"--[a-z][a-z-]*|-[a-zA-Z]", word)}:
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", help_text), f"no option {option}: {command}"
    if path == ["eval"]:
        for asked in re.findall(r" -s (\S+)", command):
            assert asked.partition(":")[0] in strategies, asked


@pytest.mark.parametrize("command", [c for c in every_command() if not re.search(r"(^| )reason ", c)])
def test_the_scripts_exist(command: str) -> None:
    """A module or a script is a file, which names the options; `.runs` is what a recipe makes."""
    for path in re.findall(r"(?<![\w/.])(?:docs|tests)/[\w./-]+", command):
        assert (ROOT / path).exists(), path
    own = re.search(r"python (?:-m ((?:tests|reason_engine)\.\S+)|(docs/\S+\.py))(.*)", command)
    if own:
        module, script, rest = own.groups()
        source = (ROOT / (script or f"{module.replace('.', '/')}.py")).read_text("utf-8")
        for option in re.findall(r" (--?[a-z][a-z-]*)", rest):
            assert re.search(rf"{option}(?![\w-])", source), option
