"""Feedback to weights to scores; bad rows, bad files, and no paths from requests."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call, Powers
from reason_engine.errors import CapabilityMissing, RequestError, SetupError, VerifierError
from reason_engine.types import Problem
from reason_engine.verifiers.satisfaction import Satisfaction, fit, fit_file
from tests.verifiers.conftest import Build, path

KIND = ("because", "so the sum is", "hence", "step by step")
RUDE = ("whatever", "i will not say", "dunno", "go away")


def rows(seed: int, count: int) -> list[tuple[str, str, bool]]:
    """Answers that explain please, answers that refuse do not; one in ten users clicks wrong."""
    rng, made = random.Random(seed), list[tuple[str, str, bool]]()
    for _ in range(count):
        good = rng.random() < 0.5
        words = [rng.choice(KIND if good else RUDE), *(rng.choice("abcdefgh") * 3 for _ in range(6))]
        rng.shuffle(words)
        made.append((f"What is {rng.randrange(99)}?", " ".join(words), good != (rng.random() < 0.1)))
    return made


def area(scores: list[float], good: list[bool]) -> float:
    """Under the ROC curve: how often a liked one stands above a disliked one."""
    pairs = [(a, b) for a, x in zip(scores, good, strict=True) if x for b, y in zip(scores, good, strict=True) if not y]
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def test_it_learns_what_users_like() -> None:
    fitted = fit(rows(1, 150), width=512)
    unseen = [(q, a, any(word in a for word in KIND)) for q, a, _ in rows(2, 120)]
    assert area([fitted.content(q, a) for q, a, _ in unseen], [good for *_, good in unseen]) > 0.95
    noise = random.Random(3)
    blind = fit([(q, a, noise.random() < 0.5) for q, a, _ in rows(1, 150)], width=512)
    assert area([blind.content(q, a) for q, a, _ in unseen], [good for *_, good in unseen]) < 0.75


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    lines = [{"question": q, "answer": a, "rating": 5 if good else 1} for q, a, good in rows(1, 60)]
    source, out = tmp_path / "feedback.jsonl", tmp_path / "liked.safetensors"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert fit_file(source, out)["rows"] == 60
    return out


async def test_a_file_by_the_operators_name(fitted: Path, build: Build, no_call: Call) -> None:
    powers = Powers(satisfaction={"liked": fitted})
    for params in ({}, {"model": "liked"}):
        judge = build("satisfaction", params, powers=powers)
        good, bad = await judge.score(Problem("?"), [path("because hence"), path("go away, dunno")], no_call)
        assert 1 > good.value > 0.5 > bad.value > 0


def test_what_a_request_cannot_have(fitted: Path, build: Build, tmp_path: Path) -> None:
    with pytest.raises(CapabilityMissing, match="fit_file") as caught:
        build("satisfaction")
    assert caught.value.param == "reasoning.verifier"
    two = Powers(satisfaction={"liked": fitted, "other": fitted})
    with pytest.raises(RequestError, match="one of: liked, other"):
        build("satisfaction", powers=two)
    with pytest.raises(RequestError, match="no fitted file named"):
        build("satisfaction", {"model": str(fitted)}, powers=two)
    with pytest.raises(ValidationError):
        Satisfaction.model_validate({"path": str(fitted)})
    (tmp_path / "broken").write_bytes(b"not weights")
    with pytest.raises(VerifierError, match="no fitted satisfaction model"):
        build("satisfaction", powers=Powers(satisfaction={"x": tmp_path / "broken"}))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: expected an object"),
        ('{"question": "q", "rating": 1}', "line 1: answer must be a text"),
        ('{"question": "q", "answer": "a", "rating": 9}', "line 1: rating"),
        ('{"question": "q", "answer": "a", "rating": "meh"}', "line 1: rating"),
        ('{"question": "q", "answer": "a", "rating": null}', "line 1: rating"),
        ('{"question": "q", "answer": "a", "rating": NaN}', "line 1: rating"),
        ('{"question": "q", "answer": "a", "rating": "up"}', "both kinds"),
        ("", "both kinds"),
    ],
)
def test_bad_feedback(tmp_path: Path, line: str, match: str) -> None:
    source = tmp_path / "feedback.jsonl"
    source.write_text(line)
    with pytest.raises(SetupError, match=match):
        fit_file(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nothing\.jsonl"):
        fit_file(tmp_path / "nothing.jsonl", tmp_path / "out")


@pytest.mark.parametrize(
    ("ratings", "content"), [((5, 4, 3, 1), 2), ((1, 0, 1, -1), 2), ((True, False), 1), (("up", "down", "Good"), 2)]
)
def test_stars_and_thumbs(tmp_path: Path, ratings: tuple[object, ...], content: int) -> None:
    rows = [{"question": "q", "answer": f"a {n}", "rating": rating} for n, rating in enumerate(ratings)]
    source = tmp_path / "feedback.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    assert fit_file(source, tmp_path / "out") == {"rows": len(ratings), "content": content}
