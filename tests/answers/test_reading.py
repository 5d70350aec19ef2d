"""Endings as chat models write them, read by kind."""

from __future__ import annotations

import pytest

from reason_engine.answers import AnswerKind, AnswerSpec, Reading, closed, find, read, revise

NUMBER = AnswerSpec("number")
CITIES = AnswerSpec("choice", (("A", "Paris"), ("B", "Rome"), ("C", "London"), ("D", "12 km")))


@pytest.mark.parametrize(
    ("text", "value", "strength"),
    [
        ("**Final Answer**\nNatalia sold 72 clips.", "72", "strong"),
        ("Answer: Answer: 3", "3", "strong"),
        ("**Final Answer:** \\[ \\boxed{72} \\]", "72", "strong"),
        ("Answer: \\[ \\boxed{72} \\]", "72", "strong"),
        ("Answer: The answer is 18.", "18", "strong"),
        ("So she sold 48+24 = 72 clips.", "72", "weak"),
        ("Weng earned 12 * 50 = 600", "600", "weak"),
        ("Answer: 48 + 24 = 72", "72", "strong"),
        ("### Answer\n\\[\n72\n\\]", "72", "strong"),
        ("Answer:\n$$\n72\n$$", "72", "strong"),
        ("## Final Answer\n\n```\n72\n```", "72", "strong"),
        ("> **Answer**: 72", "72", "strong"),
        ("**Answer: 72**", "72", "strong"),
        ("Answer: -5", "-5", "strong"),
        ("Answer: .5", "0.5", "strong"),
        ("Answer: \u2212\u20ac5", "-5", "strong"),
        ("The temperature was -10 degrees.", "-10", "weak"),
        ("#### 1,234", "1234", "strong"),
        ("Answer: $1{,}234.50$", "1234.5", "strong"),
        ("Answer: US$ 118 000", "118000", "strong"),
        ("Answer: 2 1/2 cups", "2.5", "strong"),
        ("\\boxed{2\\frac{1}{3}}", "7/3", "strong"),
        ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "0.75", "strong"),
        ("\\boxed{x = 5}", "5", "strong"),
        ("\\boxed{12\\text{ cm}^2}", "12", "strong"),
        ("\\boxed{99(k-1)}", "99(k-1)", "strong"),
        ("\\fbox{7}", "7", "strong"),
        ("the total is \\boxed{ 14.00 }.", "14", "strong"),
        ("Answer: Elvis is now 13 miles away from his house.", "13", "strong"),
        ("**Answer:** 18 eggs per day for 7 days", "18", "strong"),
        ("The answer is 18 because 9 * 2 = 18.", "18", "strong"),
        ("Answer: 18 = 9 * 2", "18", "strong"),
        ("Answer: 10 minutes (600 seconds)", "10", "strong"),
        ("Answer: twelve", "12", "strong"),
        ("Answer: $2.5 million", "2500000", "strong"),
        ("Answer: 1.5 \\times 10^{3} m", "1500", "strong"),
        ("Answer: 50%", "0.5", "strong"),
        ("It leaves at 7:00 pm", "7", "weak"),
        ("32/96 = 33.33%, which rounds down to 33", "33", "weak"),
        ("16 * 8.25 = 132\nSvetlana needed 132 spoons to make 16 muffins.", "132", "weak"),
        ('{"answer": 72}', "72", "strong"),
        ('Here:\n```json\n{"why": "a, b", "final_answer": "72 clips"}\n```', "72", "strong"),
        ("\\boxed{5}\nWait, that is wrong.\n\\boxed{6}", "6", "strong"),
        ("Answer: 5\nLet me check. The final answer is 6.", "6", "strong"),
        ("\\boxed{5} is the final answer, and the answer is correct.", "5", "strong"),
        ("Answer: Let us first add the apples of all 3 boxes.\n3 + 4 = 7\n7 + 1 = 8\n8 + 2 = 10\nSo 10", "10", "weak"),
        ("<think>\nmaybe Answer: 3\n</think>\n\nThe answer is 4.", "4", "strong"),
        ("Close a thought with </think> like so. Answer: 4", "4", "strong"),
        ("72", "72", "strong"),
        ("It is 72.", "72", "weak"),
        ("Done.\n2. So there are 9 left", "9", "weak"),
    ],
)  # fmt: skip
def test_numbers(text: str, value: str, strength: str) -> None:
    found = read(text, NUMBER)
    assert found is not None
    assert (found.value, found.strength) == (value, strength)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am not sure the answer is known",
        "I am not sure the answer is known.\nAnswer: unknown",
        "I am not sure the answer is 5",
        "Step 2: done.",
        "Answer:",
        "**Final Answer**",
        "Answer: \\[",
        "\\boxed{}",
        "\\boxed{ } and \\boxed{12",
        "Answer: 5:30 PM",
        "The answer is not 5.",
        "<think>Answer: 3",
        "<think>\nAnswer: 3\n</think>\n",
        "There are none of them.",
    ],
)
def test_no_number(text: str) -> None:
    assert read(text, NUMBER) is None


def test_percent_is_by_the_question() -> None:
    asked = AnswerSpec("number", percent=True)
    assert read("Answer: 50%", asked) == Reading("50", "strong", "marker")
    assert read("\\boxed{33.33\\%}", asked) == Reading("33.33", "strong", "box")
    assert read("\\boxed{25}", asked) == Reading("25", "strong", "box")


def test_a_path_that_was_cut_has_no_weak_answer() -> None:
    assert read("5 + 10 = 15", NUMBER, cut=True) is None
    assert read("15", NUMBER, cut=True) is None
    assert read("so \\boxed{15} app", NUMBER, cut=True) == Reading("15", "strong", "box")


@pytest.mark.parametrize(
    ("text", "letter", "strength"),
    [
        ("The correct option is B.", "B", "strong"),
        ("Answer: (C) London", "C", "strong"),
        ("\\boxed{\\text{(B)}}", "B", "strong"),
        ("Answer: Rome", "B", "strong"),
        ("Answer: 12 km", "D", "strong"),
        ("The answer is A because it is the capital.", "A", "strong"),
        ("The best answer is C: London.", "C", "strong"),
        ("(b)", "B", "strong"),
        ("Therefore, option B is correct.", "B", "weak"),
        ("A) is wrong, and B) is right.\n\nC", "C", "weak"),
        ("So it must be Rome.", "B", "weak"),
        ("I choose **D** here", "D", "weak"),
    ],
)
def test_choices(text: str, letter: str, strength: str) -> None:
    found = read(text, CITIES)
    assert found is not None
    assert (found.value, found.strength) == (letter, strength)


@pytest.mark.parametrize("text", ["Answer: E", "Answer: A dog", "Answer: A and B", "Answer: A, B", "A city is large."])
def test_no_choice(text: str) -> None:
    assert read(text, CITIES) is None


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("yes-no", "Yes, because 3 < 4.", "yes"),
        ("yes-no", "\\boxed{\\text{No}}", "no"),
        ("yes-no", "7 has no divisor.\n\nSo yes.", "yes"),
        ("yes-no", "So the answer is: **No**, it is not.", "no"),
        ("yes-no", "Answer: False.", "false"),
        ("yes-no", "Well, yes or no.", None),
        ("yes-no", "Nobody knows.", None),
        ("words", "The capital is **Paris**.", "paris"),
        ("words", "Answer: The Eiffel Tower.", "eiffel tower"),
        ("words", "The answer is Albert Einstein. He was born in Ulm.", "albert einstein"),
        ("words", "Answer: July 4th, 1776", "1776-07-04"),
        ("words", "It happened on 25 December 1991.", "1991-12-25"),
        ("words", "This is a very long sentence that goes on and on and on.", None),
        ("expression", "So the distance is $\\sqrt{145}$.", "\\sqrt{145}"),
        ("expression", "The final answer is $x^2+1$. I hope it is correct.", "x^2+1"),
        ("expression", "Answer: $x = 5$ or $x = -3$", "-3, 5"),
        ("expression", "Answer: x = 5, which is prime", "5"),
        ("expression", "\\[ \\sqrt{64+81} = \\sqrt{145} \\]", "\\sqrt{145}"),
        ("expression", "The line is \\(x^2+y^2=1\\).", "x^2+y^2=1"),
        ("expression", "\\boxed{[1,2)}", "[1,2)"),
        ("expression", "\\boxed{5\\text{ cm}}", "5"),
        ("expression", "\\boxed{\\text{Evelyn}}", "Evelyn"),
        ("expression", "It is 12 inches.", "12"),
        ("expression", "Answer: that depends on what you mean by it", None),
        ("free", "Answer: yes", "yes"),
        ("free", "An essay about 3 pigs.", None),
        ("free", "In the end the answer is that love wins over all the hate that we have seen.", None),
        ("tool", "Answer: 5", None),
    ],
)
def test_other_kinds(kind: AnswerKind, text: str, value: str | None) -> None:
    assert find(text, kind) == value


def test_the_callers_marker_counts_before_other_words() -> None:
    assert find("Result = 4\nAnswer: 5", "number", marker="Result =") == "4"
    assert find("Answer: 5", "number", marker=None) == "5"


def test_only_the_end_is_read() -> None:
    assert read("Answer: 5\n" + "x " * 3_000, NUMBER) is None


@pytest.mark.parametrize(
    ("text", "is_closed"),
    [
        ("so \\boxed{5}", True),
        ("so \\boxed{}", False),
        ("so \\boxed{5", False),
        ("Answer: 5", False),
        ("Answer: 5\n", True),
        ("**Final Answer**\n", False),
        ("**Final Answer**\n72 clips", False),
        ("**Final Answer**\n72 clips\n", True),
        ("Answer: let us see\n", False),
        ("The sum is 5.\n", False),
        ("<think>\\boxed{5}", False),
        ("#### 7\n", True),
    ],
)
def test_closed(text: str, is_closed: bool) -> None:
    assert closed(text, NUMBER) is is_closed


def test_marked_text_of_no_kind_closes() -> None:
    assert closed("(1 + 2) * 8 = 24\nAnswer: (1 + 2) * 8 = 24\n", AnswerSpec())
    assert not closed("Answer: (1 + 2) * 8", AnswerSpec())


def test_the_second_look() -> None:
    free = AnswerSpec()
    assert revise(free, ["\\boxed{5}", "Answer: 6 apples", "hello", "x"]).kind == "number"
    assert revise(free, ["\\boxed{5}", "a", "b"]).kind == "free"
    assert revise(NUMBER, ["a tale", "another", "\\boxed{5}"]).kind == "free"
    assert revise(NUMBER, ["it is 5", "so 6", "a"]).kind == "number"
    # A calculation that came to nothing is no open answer, and silence says nothing.
    lost = "She has 3 apples and 4 pears, that is 3 + 4 of them, and then we"
    assert revise(NUMBER, [lost, lost, lost]).kind == "number"
    assert revise(NUMBER, ["", "", "\\boxed{5}"]).kind == "number"
    assert revise(NUMBER, ["That depends on the year.", "", lost]).kind == "number"
    assert revise(NUMBER, ["That depends on the year.", "It has no end.", lost]).kind == "free"
    assert revise(AnswerSpec("expression"), ["so $x$ is \\frac", "we get y = z, which", "a tale"]).kind == "expression"
    assert revise(AnswerSpec("words"), [lost, lost, "Answer: Rome"]).kind == "free"
    assert revise(AnswerSpec("words"), ["Answer: 12 May 2020", "Answer: Route 66"]).kind == "words"
    assert revise(CITIES, ["\\boxed{12}", "Answer: B", "Answer: C"]).kind == "choice"
    assert revise(AnswerSpec("json"), ["a", "b"]).kind == "json"
    assert revise(NUMBER, []) == NUMBER


def test_a_line_that_was_cut_may_go_on() -> None:
    assert read("Answer: 12", NUMBER, cut=True) is None
    assert read("The answer is 12", NUMBER, cut=True) is None
    assert read("Answer: 12\nNow", NUMBER, cut=True) == Reading("12", "strong", "marker")
    assert read("The answer is 12. Now", NUMBER, cut=True) == Reading("12", "strong", "label")
