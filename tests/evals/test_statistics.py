"""Formulas against published or hand-computed numbers."""

from __future__ import annotations

import pytest

from reason_engine.evals.statistics import mcnemar, paired_difference, pass_at, wilson


def test_wilson() -> None:
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert 0 <= mcnemar(3000, 2000) < 1e-40


def test_paired_difference() -> None:
    # p = 31/102, q = 11/102: 0.1961 +- 1.96 * sqrt((0.4118 - 0.0384) / 102) = 0.1961 +- 0.1186
    assert paired_difference(30, 10, 100) == pytest.approx((0.2, 0.0775, 0.3147), abs=1e-4)
    assert paired_difference(0, 0, 0) == (0.0, -1.0, 1.0)
    assert paired_difference(10, 0, 10) == pytest.approx((1.0, 0.5206, 1.0), abs=1e-4)
    assert paired_difference(0, 0, 3) == pytest.approx((0.0, -0.5544, 0.5544), abs=1e-4)


def test_pass_at_k_is_the_chance_of_one_right_answer_among_k() -> None:
    assert pass_at(1, 3, 10) == pytest.approx(0.3)
    assert pass_at(2, 2, 4) == pytest.approx(5 / 6)  # one of the six pairs has none
    assert pass_at(4, 1, 4) == 1.0
    assert pass_at(5, 0, 10) == 0.0
    assert pass_at(3, 8, 10) == 1.0  # any three hold a right one
