"""Kinds inferred from questions."""

from __future__ import annotations

import pytest

from reason_engine.answers import AnswerKind, AnswerSpec, infer

OPTIONS = "Which is the capital of Italy?\nA) Paris\nB) Rome\nC) New York"


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Natalia sold 48 clips in April and half as many in May. How many did she sell altogether?", "number"),
        ("A shirt costs $20 and shoes $5.50 more. What is the total cost?", "number"),
        ("Find her mean score: 50, 80, 80.", "number"),
        ("In how many ways can four people sit?", "number"),
        ("What is the probability that Alice wins the game?", "number"),
        ("Simplify $\\frac{x^2 - 1}{x - 1}$.", "expression"),
        ("Solve for x: 2x + 3 = 11", "expression"),
        (OPTIONS, "choice"),
        ("Pick one: (A) 3 (B) 4 (C) 5", "choice"),
        ("Is 91 a prime number?", "yes-no"),
        ("The sky is green. True or false?", "yes-no"),
        ("Write a function that adds two numbers.", "code"),
        ("def add(a, b):\n    '''Return the sum.'''\n", "code"),
        ("Give me a SQL query for all users", "code"),
        ("Write a poem about 3 pigs.", "free"),
        ("Translate German to English: Wie viele Hunde hat er?", "free"),
        ("Can you explain how photosynthesis works?", "free"),
        ("Who wrote Hamlet?", "free"),
        ("Who was Napoleon?", "free"),
        ("What is the capital of France?", "words"),
        ("what's the capital city of New South Wales?", "words"),
        ("What is the chemical symbol for gold?", "words"),
        ("What is the opposite of hot?", "words"),
        ("Which planet is closest to the sun?", "words"),
        ("In which country is Machu Picchu?", "words"),
        ("What is the longest river in Africa?", "words"),
        ("What is the second-largest island of Greece?", "words"),
        ("What is the capital of France, and why is it there?", "free"),
        ("What is the capital of France? Tell me its history.", "free"),
        ("I have a week off. What is the capital of France like?", "free"),
        ("What kind of bird is in the lion king?", "free"),
        ("Which country's food do you like? And why?", "free"),
        ("What is the meaning of life?", "free"),
        ("What is the largest prime factor of 84?", "number"),
        ("Is Paris the capital of France?", "yes-no"),
        ("Is a whale a fish or a mammal?", "free"),
        ("", "free"),
    ],
)
def test_kinds(question: str, kind: AnswerKind) -> None:
    spec = infer(question)
    assert (spec.kind, spec.named) == (kind, False)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many legs have 3 cats? Put your final answer within \\boxed{}.", "number"),
        ("What is 3 + 4? Give the answer on a last line that starts with 'Answer:'.", "number"),
        ("List the largest cities as JSON.", "json"),
        ("Return a JSON object with the keys a and b for 3 cats.", "json"),
        (OPTIONS + "\nAnswer with only the letter.", "choice"),
        ("Was Napoleon tall? Answer yes or no.", "yes-no"),
        ("Who wrote Hamlet? Answer in one word.", "words"),
        ("How heavy is it? Give only the number.", "number"),
        ("How many legs have 3 cats? Reply with just the answer and nothing else.", "number"),
    ],
)
def test_forms_that_the_user_names(question: str, kind: AnswerKind) -> None:
    spec = infer(question)
    assert (spec.kind, spec.named) == (kind, True)


def test_options_are_listed() -> None:
    assert infer(OPTIONS).options == (("A", "Paris"), ("B", "Rome"), ("C", "New York"))
    assert infer("Which? (A) 3 m (B) 4 m, (C) 5 m").options == (("A", "3 m"), ("B", "4 m"), ("C", "5 m"))
    assert infer("a. one\nb. two\n\nWhich?").options == (("A", "one"), ("B", "two"))
    assert infer("Vitamins A) and C) are good. What is f(a) for (x - a)(x - b)?").options == ()


def test_percent_is_asked_for() -> None:
    assert infer("What percentage of 60 students passed?").percent
    assert infer("What is 3/4 as a percent?").percent
    assert not infer("20% of 60 students passed. How many are that?").percent


def test_the_entry_point() -> None:
    assert infer("def helper(x):\n    pass\n\ndef wanted(x):\n    ...\n").entry_point == "wanted"
    assert infer("Write a function called `add` that adds.").entry_point == "add"
    assert infer("Write a function that adds.").entry_point is None


def test_a_spec_is_a_value() -> None:
    assert AnswerSpec() == AnswerSpec("free") and hash(AnswerSpec("number"))


@pytest.mark.parametrize(
    "text", ["a) " * 50_000, "what is the " * 10_000, "$" * 100_000, "write a " * 12_000, "\\" * 100_000]
)
def test_long_questions_are_survived(text: str) -> None:
    assert infer(text).kind
