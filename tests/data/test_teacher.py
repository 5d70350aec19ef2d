"""How a teacher is asked: by its own profile, in general words behind a URL, or as a folder says."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.data.synthesize.teacher import TeacherOptions, open_teacher
from reason_engine.errors import EngineDead, SetupError
from reason_engine.profile import Profile
from tests.models import write_model


async def test_a_folder_says_how_it_is_asked(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    (tmp_path / "reason.json").write_text('{"ask": {"steps": "By steps!"}}')
    for profile, steps in ((None, Profile().ask.steps), (tmp_path, "By steps!")):
        target = TeacherOptions(str(model), engine="embedded", threads=1, profile=profile)
        async with open_teacher(target) as teacher:
            assert teacher.profile.ask.steps == steps


async def test_a_folder_without_a_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"--profile .*: no reason.json in this folder"):
        async with open_teacher(TeacherOptions(url="http://127.0.0.1:9", profile=tmp_path)):
            pass


async def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineDead, match=r"http://127\.0\.0\.1:9"):
        async with open_teacher(TeacherOptions(url="http://127.0.0.1:9")):
            pass
