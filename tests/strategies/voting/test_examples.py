"""The examples of a question: calls, prompts, pairs of input and output, and what is no example."""

from __future__ import annotations

import ast

import pytest

from reason_engine.strategies.voting.examples import MOST, Example, examples
from reason_engine.strategies.voting.near import NEAR, near


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (">>> f(2)\n4", [("[2]", "4")]),
        ("    >>> f([1, 2], 'a')\n    ['b']\n", [("[[1, 2], 'a']", "['b']")]),
        (">>> f(1)\n>>> f(2)\n3", [("[1]", None), ("[2]", "3")]),
        ("assert f(1, -2) == 3", [("[1, -2]", "3")]),
        ("assert f([(1, 2)]) is True, 'no'", [("[[(1, 2)]]", "True")]),
        ("f(2) should return 4. f(3) must be 9, f(4) returns 16.", [("[2]", "4"), ("[3]", "9"), ("[4]", "16")]),
        ("f(2) -> 4\nf(3) => 9\nf(4) \u279e 16\nf(5) # 25", [("[2]", "4"), ("[3]", "9"), ("[4]", "16"), ("[5]", "25")]),
        ("`f('a)(')` gives `true`", [("['a)(']", "True")]),
        ("f(2) = 1 + 3 = 4", [("[2]", "4")]),
        ("f(2) == 1 + 3", [("[2]", None)]),
        ("f(2) == 2.50 and f(3) == 12.", [("[2]", "2.5"), ("[3]", "12")]),
        ("f() returns {'a': [1]}", [("[]", "{'a': [1]}")]),
        ("f(2)", [("[2]", None)]),
        ("f(2) and later f(2) == 4", [("[2]", "4")]),
        ("Input: xs = [1, 2], k = 3\nOutput: [3]\n", [("[[1, 2], 3]", "[3]")]),
        ("Input: [1, 2]\nOutput: 3\n\nInput: []\nOutput: 0", [("[[1, 2]]", "3"), ("[[]]", "0")]),
        ("For xs = [1, 2] the output should be 14.", [("[[1, 2]]", "14")]),
    ],
)
def test_calls_of_a_function(question: str, expected: list[tuple[str, str | None]]) -> None:
    assert [(one.given, one.output) for one in examples(question, "f")] == expected


@pytest.mark.parametrize(
    "question",
    [
        "",
        "def f(x=2):\n    pass",
        "f(x) returns y",
        "f(open('a'))",
        "f(x=2) == 4",
        "g(2) == 4",
        "self.f(2) == 4",
        "myf(2) == 4",
        "f(",
        "f(" * 50_000,
        "f(1" + ")" * 50_000,
        ">>> f((((((",
        "f(2" + "\0" + ")",
    ],
)
def test_what_is_no_example(question: str) -> None:
    assert [one for one in examples(question, "f") if one.given != "[1]"] == []


def test_pairs_of_a_whole_program() -> None:
    question = "Add two numbers.\n\n## Example Input 1\n```\n1 2\n```\n"
    assert examples("Input:\n1 2\nOutput:\n3\n\nInput:\n4 5\nOutput:\n9\n", None) == [
        Example("1 2\n", "3", whole=True),
        Example("4 5\n", "9", whole=True),
    ]
    assert examples(question, None) == []


def test_no_more_than_so_many() -> None:
    assert len(examples("\n".join(f"f({n}) == {n}" for n in range(99)), "f")) == MOST


def test_inputs_near_an_example_change_one_value_by_its_type() -> None:
    made = near([Example("[3, 'ab']"), Example("[[1, 2], True]")])
    values = [ast.literal_eval(one.given) for one in made]
    assert [4, "ab"] in values and [3, "ba"] in values and [[2, 1], True] in values and [[1, 2], False] in values
    assert all(one.output is None for one in made)
    assert len(made) <= NEAR and len({one.given for one in made}) == len(made)
    assert near([]) == near([Example("[]")]) == near([Example("x", whole=True)]) == []
    assert near([Example("[None]")]) == []
    assert made == near([Example("[3, 'ab']"), Example("[[1, 2], True]")])
