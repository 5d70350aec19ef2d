"""reason.json: what is written is read again; bad files are named, with the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from reason_engine.errors import ModelLoadError
from reason_engine.profile import FILE, Ask, Profile, TaskMatch, read_profile, write_profile
from reason_engine.runtime.verify import checker_of
from reason_engine.types import Problem

NANO = Profile(
    description="demonstration",
    ask=Ask(direct="", steps="Think step by step."),
    value_prompt="Can {state}?",
    temperature={"self-consistency": 0.6},
    tasks=(
        TaskMatch(task="game24", match=r"numbers (?P<numbers>[\d ]+) .*make (?P<target>\d+)", checker="countdown"),
        TaskMatch(task="any", match=r"(?P<numbers>\d+)", checker="countdown"),
    ),
)


def test_a_model_without_the_file_gets_the_general_prompts(tmp_path: Path) -> None:
    assert read_profile(tmp_path) == Profile()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_profile(tmp_path, NANO)
    assert read_profile(tmp_path) == NANO
    assert "step_end" not in json.loads((tmp_path / FILE).read_text("utf-8"))


def test_the_first_matching_task_wins_with_its_groups() -> None:
    found = NANO.task_of("Use the numbers 4 5 6 10 and + - * / to make 24.")
    assert found is not None
    assert (found[0].task, dict(found[1])) == ("game24", {"numbers": "4 5 6 10", "target": "24"})
    assert NANO.task_of("Hello") is None
    other = NANO.task_of("7?")
    assert other is not None and other[0].task == "any"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "(file)"),
        ("[]", "(file)"),
        ('{"asks": {}}', "asks"),
        ('{"ask": {"steps": 1}}', "ask.steps"),
        ('{"step_end": ""}', "step_end"),
        ('{"tasks": [{"task": "t", "match": "(", "checker": "c"}]}', "tasks.0.match"),
        ('{"value_options": ["yes"]}', "value_options"),
        ('{"wait": ""}', "wait"),
        ('{"certain": 0.5}', "certain"),
        ('{"certain": 1}', "certain"),
        ('{"critique": {"accepts": "("}}', "critique.accepts"),
        ('{"critique": {"from_line": "Line [0-9]+"}}', "critique.from_line"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(ModelLoadError) as caught:
        read_profile(tmp_path)
    assert FILE in str(caught.value) and where in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelLoadError):
        read_profile(tmp_path)


def test_a_profile_is_frozen() -> None:
    with pytest.raises(ValidationError):
        NANO.description = "x"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_task_without_a_checker_is_only_told_apart() -> None:
    profile = Profile.model_validate({"tasks": [{"task": "judgement", "match": "^Can .* make 24"}]})
    found = profile.task_of("Can 4 6 make 24?")
    assert found and found[0].task == "judgement"
    assert checker_of(profile, Problem("Can 4 6 make 24?")) is None
