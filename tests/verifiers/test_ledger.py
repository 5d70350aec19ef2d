"""Where the numbers of a derivation come from, and which questions the ledger fits."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from reason_engine.contracts import Call
from reason_engine.recipes.words import word_problem
from reason_engine.types import Problem
from reason_engine.verifiers.process_rules import ProcessRules
from reason_engine.verifiers.process_rules.account import account
from reason_engine.verifiers.process_rules.ledger import AGAIN, LOOSE, PART, UNREAD, Ledger, fits
from tests.verifiers.conftest import path


def test_the_ledger_knows_where_numbers_come_from() -> None:
    ledger = Ledger((Fraction(23), Fraction(6)), (Fraction(99),))
    assert ledger.take([Fraction(20), Fraction(6)]) == PART
    ledger.put(Fraction(120))
    assert ledger.take([Fraction(3), Fraction(6)]) == PART
    ledger.put(Fraction(18))
    assert ledger.take([Fraction(120), Fraction(18)]) == 1
    ledger.put(Fraction(138))
    assert ledger.spent() == 1  # each part is half a use, and so is the six beside it
    assert ledger.derived(Fraction(138))
    assert not ledger.derived(Fraction(18))
    assert ledger.take([Fraction(17)]) == 0
    assert ledger.take([Fraction(99)]) == 1


def test_the_ledger_counts_uses() -> None:
    def spent(*steps: tuple[int, int, int]) -> float:
        ledger = Ledger((Fraction(5), Fraction(8)))
        for a, b, result in steps:
            ledger.take([Fraction(a), Fraction(b)])
            ledger.put(Fraction(result))
        return ledger.spent()

    assert spent((5, 8, 13)) == 1
    assert spent((5, 5, 10)) == pytest.approx(UNREAD * AGAIN)
    assert spent((5, 8, 40), (5, 8, 13)) == pytest.approx(LOOSE * AGAIN**2)


def test_a_step_of_several_lines_is_accounted_line_by_line() -> None:
    ledger = Ledger((Fraction(12), Fraction(25), Fraction(7)))
    one = account(ledger, "12 + 25 = 37\n37 - 7 = 30", "Answer:")
    assert (one.grounded, one.derived, ledger.results) == (1, None, [37, 30])
    assert account(ledger, "So:\nAnswer: 30", "Answer:").derived is True
    assert account(ledger, "Answer: 37\n", "Answer:").derived is False
    assert account(None, "1 + 1 = 3\nAnswer: 9", "Answer:").derived is None
    assert account(None, "1 + 1 = 3\nAnswer: 9", "Answer:").refuted


def test_it_fits_the_stories_it_is_made_for() -> None:
    rng = random.Random(5)
    asked = [word_problem(rng, rng.randint(1, 8), rng.randint(1, 3)).question for _ in range(300)]
    assert sum(fits(Problem(question)) for question in asked) >= 295


async def test_a_step_that_ends_in_the_answer(no_call: Call) -> None:
    asked = Problem("Anna has 12 apples. She buys 25 more. How many apples does Anna have now?")
    right, wrong = (path(f"12 + 25 = 37 apples.\n\nAnswer: {said}") for said in (37, 25))
    scores = await ProcessRules().score(asked, [right, wrong], no_call)
    assert scores[0].value == 1 and scores[1].value < 0.1
    assert "not what the steps come to" in scores[1].detail


@pytest.mark.parametrize(
    "question",
    [
        "",
        "How many legs has a spider?",
        "If $x + 3 = 10$, what is $2x$ and 3?",
        "What is \\frac{1}{2} of 30 and 4?",
        "A shirt costs $20 and a hat $5. How much are both?",
        "Tom runs 5 miles in 40 minutes. How many hours are 3 and 10 miles? It took 2 hours.",
        "Anna has 12 apples. Ben has half as many. Carl has 3. How many have they?",
        "He saves 20% of 150 coins and 3 more. How many?",
        "A number n is 3 more than 5. What is it?",
        "Mix them 3:4 in 2 bowls of 10. How many?",
        "She sells 1.5 of 12 and 3. How many?",
        "The average of 3 and 5 numbers is 4. How many?",
        "What are the prime factors of 12 and 30?",
        "Anna is 3 years older than Ben who is 12. How old are they?",
        "Anna has 12 apples, Ben has 5, Carl has 3 and Dora has 4. How many do they have?",
    ],
)
async def test_elsewhere_nothing_is_measured(question: str, no_call: Call) -> None:
    assert not fits(Problem(question))
    made = path("So they are 99 + 1 = 100 in all.\n\nAnswer: 7, which nothing came to")
    assert [step.value for step in await ProcessRules().score_steps(Problem(question), made, no_call)] == [1, 1]
