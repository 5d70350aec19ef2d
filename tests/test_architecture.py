"""docs/architecture.md shows the house as it stands."""

from __future__ import annotations

import re
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
    assert len(PAGE.splitlines()) <= 60
