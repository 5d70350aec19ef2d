"""What is learned of an engine's speed from paths that end one after the other, and what is said of further ones."""

from __future__ import annotations

from itertools import pairwise

import pytest

from reason_engine.runtime.forecast import LEAST_ROW, SHORTEST, Forecast, Laps, likely_longest, scaled


def drawn(forecast: Forecast, lengths: list[int], shared: float, row: float, *, waited: float = 0.0) -> None:
    """A draw of paths of these lengths, each step of which takes `shared` seconds and `row` more for each row."""
    now = 100.0
    laps, now = Laps(now), now + waited
    laps.gained(now, [1] * len(lengths))
    marks = sorted({1, *lengths})
    for begin, end in pairwise(marks):
        rows = sum(length >= end for length in lengths)
        now += (end - begin) * (shared + row * rows)
        laps.gained(now, [min(length, end) for length in lengths], ended=True)
    laps.over(now, lengths)
    forecast.learn(laps, now, len(lengths))


def test_ends_one_after_the_other_tell_what_a_row_costs() -> None:
    forecast = Forecast()
    drawn(forecast, [100, 150, 200], 0.05, 0.01)
    assert forecast.step(1) == pytest.approx(0.06)
    assert forecast.step(8) == pytest.approx(0.13)
    assert forecast.step(13) == pytest.approx(0.18)


def test_one_width_is_scaled_with_caution() -> None:
    forecast = Forecast()
    drawn(forecast, [100, 100], 0.1, 0.05)  # 0.2 seconds a step at two rows
    assert forecast.step(2) == pytest.approx(0.2)
    assert forecast.step(4) == pytest.approx(0.4) == pytest.approx(scaled(0.2, 2, 4))
    assert forecast.step(1) == pytest.approx(0.15)


def test_nothing_is_known_before_a_draw() -> None:
    assert Forecast().step(1) is None
    assert Forecast().seconds(4, [100]) is None
    forecast = Forecast()
    drawn(forecast, [100, 200], 0.1, 0.0)
    assert forecast.seconds(4, []) is None


@pytest.mark.parametrize("row", [0.0, -0.02, 5.0])
def test_no_row_is_taken_to_be_free_nor_to_cost_more_than_its_share(row: float) -> None:
    forecast = Forecast()
    drawn(forecast, [100, 200, 300], 0.1, row)
    one, many = forecast.step(1), forecast.step(20)
    assert one is not None and many is not None and 0 < one < many
    width = sum(s.tokens for s in forecast.stretches) / sum(s.steps for s in forecast.stretches)
    each = sum(s.seconds for s in forecast.stretches) / sum(s.steps for s in forecast.stretches)
    assert each * (1 + LEAST_ROW * (20 / width - 1)) <= many + 1e-9
    assert many <= each * 20 / width + 1e-9


def test_the_latest_draw_counts_most() -> None:
    forecast = Forecast()
    drawn(forecast, [100, 200], 0.1, 0.01)
    before = forecast.step(2) or 0.0
    drawn(forecast, [100, 200], 0.3, 0.03)
    after = forecast.step(2) or 0.0
    assert 0.5 * (before + 3 * before) < after < 3 * before


def test_pieces_that_are_too_short_to_be_timed_are_joined() -> None:
    forecast = Forecast()
    drawn(forecast, [100, 100 + SHORTEST - 1, 200], 0.05, 0.01)
    assert [stretch.steps for stretch in forecast.stretches] == [99, 100]
    short = Forecast()
    drawn(short, [3, 4], 0.05, 0.01)
    assert short.step(1) is not None  # a whole draw says what it can


def test_the_time_is_that_of_the_longest_and_of_what_was_waited_for() -> None:
    forecast, lengths = Forecast(), [100, 150, 200]
    drawn(forecast, lengths, 0.05, 0.01, waited=2.0)
    assert forecast.seconds(2, lengths) == pytest.approx(2 + 0.07 * likely_longest(lengths, 2))
    assert forecast.seconds(6, lengths) == pytest.approx(4 + 0.11 * likely_longest(lengths, 6))


def test_more_paths_have_a_longer_longest_one() -> None:
    even, uneven = [100, 100, 100], [50, 100, 150]
    assert 100 < likely_longest(even, 1) < likely_longest(even, 8) < likely_longest(even, 64) < 200
    assert likely_longest(uneven, 8) > likely_longest(even, 8)
    assert likely_longest([100], 1) == likely_longest(even, 1)
