"""Files of examples: written and read again, and one clear line on the first bad row."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from reason_engine.data import families
from reason_engine.data import mixture as door
from reason_engine.data.formats.examples import Example, read, write
from reason_engine.data.mixture import Part, Stream
from reason_engine.errors import RequestError, SetupError


def test_round_trip(tmp_path: Path) -> None:
    examples = list(islice(Stream([Part(family=name, share=1) for name in families], 1), 400))
    assert write(tmp_path / "a.jsonl", examples) == 400
    assert list(read(tmp_path / "a.jsonl")) == examples


@pytest.mark.parametrize(
    "line, said",
    [
        ("{", "not JSON"),
        ("[]", "messages"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "pairs"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}',
            r"messages\[0\]",
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 1}]}',
            r"messages\[1\]",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, said: str) -> None:
    good = json.dumps({"messages": Example("q", "a").messages()})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(SetupError, match=rf"a\.jsonl:2: .*{said}"):
        list(read(tmp_path / "a.jsonl"))


def test_bad_weight(tmp_path: Path) -> None:
    row = {"messages": Example("q", "a").messages(), "weight": "much"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(SetupError, match="weight"):
        list(read(tmp_path / "a.jsonl"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.jsonl"):
        list(read(tmp_path / "none.jsonl"))


def test_door_draws_families_and_mixtures(tmp_path: Path) -> None:
    rows = list(door.draw("words", None, 5, 3, ["steps=[2, 2]"], None))
    assert len(rows) == 5
    assert rows == list(door.draw("words", None, 5, 3, ["steps=[2, 2]"], None))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("mixture: [{family: value, share: 1}]\n")
    assert list(door.draw(None, recipe, 7, 0, [], tmp_path / "o.jsonl")) == []
    assert len(list(read(tmp_path / "o.jsonl"))) == 7
    assert all(name in door.describe() for name in families)


@pytest.mark.parametrize(
    "family, recipe, settings, said",
    [
        ("wordz", None, [], "did you mean 'words'"),
        ("words", None, ["stepz=3"], "stepz"),
        ("words", None, ["steps"], "key=value"),
        (None, "mixture: 3", [], "mixture"),
        (None, "mixture: [{family: value}]", [], r"mixture\.0: share"),
        (None, "a: [", [], "r.yaml"),
        ("words", "mixture: []", [], "either"),
    ],
)
def test_door_refuses(
    tmp_path: Path, family: str | None, recipe: str | None, settings: list[str], said: str
) -> None:
    file = None
    if recipe is not None:
        file = tmp_path / "r.yaml"
        file.write_text(recipe)
    with pytest.raises((SetupError, RequestError), match=said):
        list(door.draw(family, file, 1, 0, settings, None))
