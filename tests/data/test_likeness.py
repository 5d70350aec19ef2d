"""What texts are compared by: MinHash, the numbers in them, what a rewrite must leave."""

from __future__ import annotations

import random

import pytest

from reason_engine.data.texts import NearIndex, band_rows, grams, kept, numbers, same_numbers


def test_minhash_estimates_jaccard() -> None:
    rng, index = random.Random(0), NearIndex(0.8, 1024)
    pool = [f"w{n}" for n in range(3000)]
    a = rng.sample(pool, 400)
    for share in (0.2, 0.5, 0.9):
        b = a[: round(400 * share)] + rng.sample(pool, 400 - round(400 * share))
        one, two = set(grams(a, 5)), set(grams(b, 5))
        true = len(one & two) / len(one | two)
        assert index.signature(a).jaccard(index.signature(b)) == pytest.approx(true, abs=0.06)


def test_bands_find_a_pair_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.8, 0.95):
        rows = band_rows(threshold, 128)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
        assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.99
    index = NearIndex(0.8)
    base = [f"w{n}" for n in range(200)]
    index.add(index.signature(base))
    shares = [
        (index.near(other), other.jaccard(index.signature(base)))
        for other in (index.signature([*base[:cut], *(f"x{n}" for n in range(200 - cut))]) for cut in (160, 170, 195))
    ]
    assert [found for found, _ in shares] == [[], [], [(0, shares[2][1])]], "a shared band alone is not enough"
    assert shares[1][1] > 0.6
    index = NearIndex(0.8)
    for number in range(300):  # beyond the first block of signatures
        index.add(index.signature([f"{number}-{n}" for n in range(30)]))
    assert index.near(index.signature([f"77-{n}" for n in range(30)])) == [(77, 1.0)]
    assert index.near(index.signature(["nothing", "like", "it"])) == []


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("12 apples and 3 pears", "3 pears, 12 apples", True),
        ("12 apples", "twelve apples", True),
        ("1,000 and 2.50", "1000 and 2.5", True),
        ("1 apple", "one apple", True),
        ("an apple", "one apple", True),
        ("12 apples", "13 apples", False),
        ("12 apples", "apples", False),
        ("3 and 3", "3", False),
        ("three pears", "some pears", False),
        ("1 apple", "an apple", False),
        ("007", "7", True),
    ],
)
def test_numbers_are_compared(a: str, b: str, same: bool) -> None:
    assert same_numbers(a, b) is same
    assert same_numbers(b, a) is same


def test_numbers_in_order() -> None:
    assert numbers("$1,200.50 for 3 of 12,5") == ("1200.5", "3", "12", "5")


def test_what_a_rewrite_must_leave() -> None:
    said = "Run `a + b` on $x^2$ or $2x_1 = 3$ at https://a.b/c for $5 and $7 with {name} by m@n.org"
    assert set(kept(said)) == {"`a + b`", "$x^2$", "$2x_1 = 3$", "https://a.b/c", "{name}", "m@n.org"}
