"""The vote arithmetic, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from reason_engine.strategies.voting.settle import Rule, gain, lead_probability, next_wave, settled


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1 / 2), (1, 0, 3 / 4), (4, 0, 31 / 32), (1, 1, 1 / 2), (2, 1, 11 / 16), (0, 1, 1 / 4)],
)
def test_lead_probability(first: int, second: int, expected: float) -> None:
    assert lead_probability(first, second) == pytest.approx(expected)


def test_a_lead_that_cannot_be_caught_settles() -> None:
    assert settled([3, 1], remaining=1, rule=Rule(0.9999))
    assert not settled([3, 1], remaining=2, rule=Rule(0.9999))


def test_certainty_settles() -> None:
    assert settled([4], remaining=12, rule=Rule(0.95))  # 31/32
    assert not settled([4, 1], remaining=12, rule=Rule(0.95))  # 57/64


def test_weighted_votes_never_overstate_a_lead() -> None:
    assert lead_probability(3.9, 0.2) == lead_probability(3, 1)
    assert lead_probability(4 - 1e-12, 1 + 1e-12) == lead_probability(4, 1)
    assert settled([2.5, 0.9], remaining=1.5, rule=Rule(0.9999))
    assert not settled([2.5, 0.9], remaining=1.7, rule=Rule(0.9999))


def test_no_votes_settle_nothing_while_paths_remain() -> None:
    assert not settled([], remaining=1, rule=Rule(0.6))
    assert settled([], remaining=0, rule=Rule(0.6))


def test_waves_are_as_large_as_the_vote_is_open() -> None:
    assert next_wave([], 16, Rule(0.95)) == 4
    assert next_wave([4, 2], 10, Rule(0.95)) == 4  # 8 against 2: 0.967; 7 against 2: 0.945
    assert next_wave([3, 3], 10, Rule(0.95)) > next_wave([4, 2], 10, Rule(0.95))
    assert next_wave([1, 1], 2, Rule(0.95)) == 2
    assert next_wave([2], 14, Rule(0.9)) == 3  # one more would do; a wave has at least three


def test_a_path_of_a_scattered_vote_promises_most_and_one_of_a_clear_vote_nothing() -> None:
    promised = [gain(counts, 12) for counts in ((1, 1, 1, 1), (2, 1, 1), (2, 1), (3, 1), (4,))]
    assert promised == sorted(promised, reverse=True)
    assert promised[0] > 0.01 and abs(promised[-1]) < 0.001


def test_what_is_promised_is_the_mean_rise_over_all_that_may_come() -> None:
    """With one path to come after two votes for a and one for b: a again 2 in 4, b 1 in 4, a new one 1 in 4."""
    expected = (2 / 4 * 3 + 1 / 4 * 2 + 1 / 4 * 2) / 5 - 2 / 4
    assert gain((2.0, 1.0), 1) == pytest.approx(expected, abs=0.02)


def test_worth_settles_what_no_certainty_does() -> None:
    sure = Rule(0.95)
    assert not settled([2, 1], remaining=13, rule=sure)
    assert settled([2, 1], remaining=13, rule=Rule(0.95, worth=0.006))
    assert not settled([1, 1, 1], remaining=13, rule=Rule(0.95, worth=0.006))
    assert settled([1, 1, 1], remaining=13, rule=Rule(0.95, worth=0.05))
    assert not settled([], remaining=3, rule=Rule(0.95, worth=0.5))


def test_a_wave_is_as_large_as_worth_may_need() -> None:
    assert next_wave([], 16, Rule(0.95, worth=0.006)) == 3
    assert next_wave([2, 2], 12, Rule(0.95)) > next_wave([2, 2], 12, Rule(0.95, worth=0.006))


def test_many_paths_to_come_are_looked_at_no_further_than_needed() -> None:
    assert gain((1.0,) * 40, 200) == gain((1.0,) * 40, 64)
