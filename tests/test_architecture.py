"""docs/architecture.md shows the house as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.test_floors import FLOORS, MAPPED, NOT_CODE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def rows() -> dict[str, str]:
    """part -> floor, as the page says."""
    table = PAGE.split("<!-- map -->")[1].split("<!-- /map -->")[0]
    return {part: floor for floor, part in re.findall(r"^\| (\S+) \| `(\w+)` \|", table, re.MULTILINE)}


def parts() -> set[str]:
    """What is there."""
    folder = ROOT / "reason_engine"
    files = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    folders = {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    return files | folders | set(MAPPED)


def test_the_page_names_every_part_and_no_other() -> None:
    assert set(rows()) == parts() | NOT_CODE


def test_the_floors_of_the_page_are_those_of_the_map() -> None:
    order = [part for names in FLOORS for part in names.split() if part in rows()]
    listed = [part for part in rows() if part not in NOT_CODE]
    number = {part: floor for floor, names in enumerate(FLOORS) for part in names.split()}
    assert [number[part] for part in listed] == [number[part] for part in order]
    for part in listed:
        expected = number[part] if number[part] < 4 else {"serving": 5, "cli": 6}.get(part, 4)
        assert rows()[part] == f"F{expected}"


def test_it_is_a_page() -> None:
    assert len(PAGE.splitlines()) <= 140


def pictured() -> set[str]:
    """The files of the picture; the folder at the beginning of a line holds for the lines below it."""
    files, folder = set[str](), ""
    for line in PAGE.split("<!-- request -->")[1].split("<!-- /request -->")[0].splitlines():
        if line[:1].isalpha():
            folder = "serving/" if line.startswith("serving/") else "reason_engine/"
        elif found := re.match(r"  ([\w/]+\.py) ", line):
            files.add(folder + found[1])
    return files


def test_the_picture_of_a_request_is_what_a_request_does() -> None:
    """Every file that a streamed vote crosses stands in the picture, and no other."""
    command = [sys.executable, "-m", "tests.bench.trace_request"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert pictured() == set(ran.stdout.splitlines()[:-1])
