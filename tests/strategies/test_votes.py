"""The vote arithmetic, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from reason_engine.strategies.self_consistency import Ballot, lead_probability, next_wave, settled
from reason_engine.types import Path, Vote


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


def path(node: int, answer: str | None) -> Path:
    return Path(node, "", "", answer=answer)


def test_a_ballot_counts_weights_and_asks_for_the_next_wave() -> None:
    weights = {0: 2.0, 1: 1.0, 2: 0.0}
    ballot = Ballot(16, 0.8, lambda p: weights.get(p.node, 1.0))
    assert ballot.wave == 3
    closed = ballot.until
    assert closed is not None
    assert not closed([path(0, "a"), path(1, "b"), path(2, "b")])
    ballot.paths += [path(0, "a"), path(1, "b"), path(2, "b")]
    ballot.votes = (Vote("a", 1, 2.0), Vote("b", 1, 1.0))
    assert not ballot.decided
    assert Ballot(16, None, lambda p: 1.0).until is None
    assert Ballot(5, None, lambda p: 1.0, [path(0, "a")]).wave == 4


def test_a_wave_is_closed_only_where_no_path_to_come_can_turn_the_vote() -> None:
    three = [path(0, "a"), path(1, "a"), path(2, "b"), path(3, "a")]
    even = Ballot(5, 0.8, lambda p: 1.0).until
    assert even is not None
    assert even(three)
    assert not even(three[:3])
    # One path to come may be as heavy as the heaviest so far: 4 against 2.5 + 2.5.
    uneven = Ballot(6, 0.8, lambda p: 2.5 if p.node == 2 else 1.0)
    assert uneven.until is not None
    assert not uneven.until([*three, path(4, "a")])


def test_a_ballot_is_decided_only_where_no_path_to_come_can_turn_it_or_the_lead_is_certain() -> None:
    ballot = Ballot(6, 0.99, lambda p: 2.5 if p.node == 2 else 1.0, [path(i, "a") for i in range(5)])
    ballot.votes = (Vote("a", 4, 4.0), Vote("b", 1, 2.5))
    assert not ballot.decided
    ballot.votes = (Vote("a", 4, 5.5), Vote("b", 1, 2.5))
    assert ballot.decided


def test_no_votes_settle_nothing_while_paths_remain() -> None:
    assert not settled([], remaining=1, confidence=0.6)
    assert settled([], remaining=0, confidence=0.6)


def test_waves_are_as_large_as_the_vote_is_open() -> None:
    assert next_wave([], 16, 0.95) == 4
    assert next_wave([4, 2], 10, 0.95) == 4  # 8 against 2: 0.967; 7 against 2: 0.945
    assert next_wave([3, 3], 10, 0.95) > next_wave([4, 2], 10, 0.95)
    assert next_wave([1, 1], 2, 0.95) == 2
    assert next_wave([2], 14, 0.9) == 3  # one more would do; a wave has at least three
