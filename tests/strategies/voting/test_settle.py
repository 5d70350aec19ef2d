"""The vote arithmetic, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from reason_engine.strategies.voting.settle import lead_probability, next_wave, settled


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1 / 2), (1, 0, 3 / 4), (4, 0, 31 / 32), (1, 1, 1 / 2), (2, 1, 11 / 16), (0, 1, 1 / 4)],
)
def test_lead_probability(first: int, second: int, expected: float) -> None:
    assert lead_probability(first, second) == pytest.approx(expected)


def test_a_lead_that_cannot_be_caught_settles() -> None:
    assert settled([3, 1], remaining=1, confidence=0.9999)
    assert not settled([3, 1], remaining=2, confidence=0.9999)


def test_certainty_settles() -> None:
    assert settled([4], remaining=12, confidence=0.95)  # 31/32
    assert not settled([4, 1], remaining=12, confidence=0.95)  # 57/64


def test_weighted_votes_never_overstate_a_lead() -> None:
    assert lead_probability(3.9, 0.2) == lead_probability(3, 1)
    assert lead_probability(4 - 1e-12, 1 + 1e-12) == lead_probability(4, 1)
    assert settled([2.5, 0.9], remaining=1.5, confidence=0.9999)
    assert not settled([2.5, 0.9], remaining=1.7, confidence=0.9999)


def test_no_votes_settle_nothing_while_paths_remain() -> None:
    assert not settled([], remaining=1, confidence=0.6)
    assert settled([], remaining=0, confidence=0.6)


def test_waves_are_as_large_as_the_vote_is_open() -> None:
    assert next_wave([], 16, 0.95) == 4
    assert next_wave([4, 2], 10, 0.95) == 4  # 8 against 2: 0.967; 7 against 2: 0.945
    assert next_wave([3, 3], 10, 0.95) > next_wave([4, 2], 10, 0.95)
    assert next_wave([1, 1], 2, 0.95) == 2
    assert next_wave([2], 14, 0.9) == 3  # one more would do; a wave has at least three
