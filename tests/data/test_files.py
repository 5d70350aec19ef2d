"""Files of examples: written and read again, and one clear line on the first bad row."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from reason_engine.data import Example, families
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation
from reason_engine.data.mixture import Part, Stream, describe, generate_rows, write_examples
from reason_engine.errors import RequestError, SetupError
from reason_engine.types import Message


def read(path: Path) -> list[Conversation]:
    return list(read_rows(path, Conversation))


def conversation(example: Example) -> Conversation:
    turns = tuple(Message(turn["role"], turn["content"]) for turn in example.messages())  # type: ignore[arg-type]
    return Conversation(turns, example.family, example.weight, example.skip)


def test_round_trip(tmp_path: Path) -> None:
    examples = list(islice(Stream([Part(family=name, share=1) for name in families], 1), 400))
    assert write_examples(tmp_path / "a.jsonl", examples) == 400
    assert read(tmp_path / "a.jsonl") == [conversation(example) for example in examples]


@pytest.mark.parametrize(
    "line, said",
    [
        ("{", "is not JSON"),
        ("[]", "no object"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "the last message must be the assistant's"),
        ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}', r"messages\[0\]"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": 1}]}', r"messages\[1\]"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, line: str, said: str) -> None:
    good = json.dumps({"messages": Example("q", "a").messages()})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(SetupError, match=rf"a\.jsonl:2: .*{said}"):
        read(tmp_path / "a.jsonl")


def test_bad_weight(tmp_path: Path) -> None:
    row = {"messages": Example("q", "a").messages(), "weight": "much"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(SetupError, match="weight"):
        read(tmp_path / "a.jsonl")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none\.jsonl"):
        read(tmp_path / "none.jsonl")


def test_rows_are_generated_from_families_and_mixtures(tmp_path: Path) -> None:
    rows = list(generate_rows("words", None, 5, 3, ["steps=[2, 2]"], None))
    assert len(rows) == 5
    assert rows == list(generate_rows("words", None, 5, 3, ["steps=[2, 2]"], None))
    recipe = tmp_path / "r.yaml"
    recipe.write_text("mixture: [{family: value, share: 1}]\n")
    assert list(generate_rows(None, recipe, 7, 0, [], tmp_path / "o.jsonl")) == []
    assert len(read(tmp_path / "o.jsonl")) == 7
    assert all(name in describe() for name in families)


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
def test_wrong_settings_of_a_generation_are_refused(
    tmp_path: Path, family: str | None, recipe: str | None, settings: list[str], said: str
) -> None:
    file = None
    if recipe is not None:
        file = tmp_path / "r.yaml"
        file.write_text(recipe)
    with pytest.raises((SetupError, RequestError), match=said):
        list(generate_rows(family, file, 1, 0, settings, None))
