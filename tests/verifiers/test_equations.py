"""Equations in text: right, wrong, or not judged; a wrong one only where both sides were certainly parsed."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reason_engine.verifiers.process_rules.equations import equations
from reason_engine.verifiers.process_rules.numbers import numbers
from reason_engine.verifiers.process_rules.units import convertible

RIGHT = """
12 + 25 = 37
She now has $1,200 + 25 = 1225 apples.
10 - 4 = 6 (left: 4 5 6)
8 / 1/3 = 24 (left: 24)
10 / 3 = 3.33
10 / 3 = 3.3
200 / 3 = 66.66
100 / 3 = 33
0.1 + 0.2 = 0.3
0.33 * 60 = 20
3.14 * 5^2 = 78.54
16.67 * 6 = 100
60 x .75 = 45
20% * 50 = 10
10% of 50 = 5
1/4 of the 20 = 5
80 - 20% = 64
100 - 50 = 50%
(75/100)*100=75% of the flowers are not roses.
36 / 48 * 100 = 75%
- 12 + 25 = 37
- 12 + 25 = 13
2 - 9 = -7
5 apples + 3 apples = 8 apples
5 snakes/jaguar * 6 jaguars = 30 snakes
(60 inches + 68 inches + 64 inches) / 3 = 64 inches
$3 per brownie * 4 brownies = $12
She spends $40 on t-shirts / 2 = $20 on jeans.
60 students x 2/3 = 40 students
20 \u2013 12 = 8 years
80 \u00f7 4 \u00d7 2 = 40
5 x 3 = 15
so x = 5 + 3 = 8
(3 + 4 = 7)
2(3) = 6
6 / 2(3) = 9
6 / 2(3) = 1
8 x 1 1/2 = 12
3 / 4 * 2 = 1 1/2
2\u00bd + 1\u00bd = 4
5! = 120
2^3 = 8
2**10 = 1024
3\u00b2 + 4\u00b2 = 25
(2/5)*500cm\u00b3 = 200cm\u00b3
\u221a(9) + 1 = 4
10 / 3 \u2248 3.3
2/3 \\approx 0.7
13:00 is late, 2 + 3 = 5
\\( \\frac{3}{4} \\times 8 = 6 \\)
\\[ \\boxed{2 + 3 = 5} \\]
\\frac12 + \\frac{1}{2} = 1
1\\frac{1}{2} + 1 = 2.5
\\sqrt{16} + 2^{3} = 12
\\left( 2 + 3 \\right) \\cdot 4 = 20
\\text{Total} = 56 \\text{ kg} + 46 \\text{ kg} = 102 \\text{ kg}
90^\\circ + 45^\\circ = 135^\\circ
1{,}200 + 1,\\!300 = 2500
**12 + 3 = 15**
12 + 3 &= 15 \\\\
"""
WRONG = """
12 + 25 = 47
10 / 3 = 3.34
10 / 3 = 4
0.33 * 60 = 25
0.35 * 60 = 20
3.14 * 5^2 = 80
She sold 48/2 = 25 clips in May.
5 snakes/jaguar * 6 jaguars = 31 snakes
$3 per brownie * 4 brownies = $13
20% * 50 = 11
8 x 1 1/2 = 13
2^3 = 9
5! = 121
\\( \\frac{3}{4} \\times 8 = 7 \\)
\\[ \\text{Total} = 56 \\text{ kg} + 46 \\text{ kg} = 112 \\text{ kg} \\]
\\sqrt{16} + 2^{3} = 13
6 / 2(3) = 4
10 / 3 \u2248 5
He made a total of 4 * 25 = 110 dollars.
12 + 25 is 37, and 37 - 7 = 31.
2 hours * 3 hours = 7 hours
"""
OPEN = """
3x + 2 = 11
x + 4 = 10
3 + x = 10
5 x + 3 = 13
2\u03c0 = 6.5
f(2) = 5
f(2) = 3 + 4
sin(30) = 0.6
\\sin 30^\\circ = 0.6
\\log_2 8 = 4
\\binom{5}{2} = 11
17 \\equiv 3 \\pmod 5
17 = 3 (mod 5)
17 mod 5 = 3
17 % 5 = 3
10 + 5 = 3 o'clock
52_8 = 43
a_1 + a_2 = 5
\\sqrt{2} = 1.5
1 + 2 + \\dots + 10 = 56
1 + 2 + ... + 10 = 56
0.333... * 3 = 2
0.\\overline{3} = 0.4
(3, 4) = 5
(1, 5] = 4
\\{1, 2\\} = 3
3:4 = 7:8
11:00 - 8:00 = 4 hours
12/05/2020 = 5
weeks 3-4 = 1
1 hour = 60 minutes
96 ounces = 5 pounds
2 hours = 2 * 60 = 120 minutes
1 hour + 30 minutes = 90
$1 / 2 = 50 cents
2 dozen + 6 = 30
5 * 3 = $15,000
half of 48 + 2 = 26
twice 5 + 3 = 13
5 shirts at $5 + $3 = 28
the sum of 5 and 3 * 2 = 16
it is not true that 2 + 2 = 5
2 + 2 \\neq 5
2 + 2 != 5
Is 2 + 2 = 5?
2 + 2 = 5 is wrong
3 < 4 = 5
3 |x| + 2 = 6
5 \\pm 2 = 9
5 \\star 2 = 9
+ 3 = 8
14, 400 / 80 = 180
1 2 3 + 4 = 9
467 000 - 450 000 = 17 000
1 / (2 - 2) = 0
60 kW would cost = 0.10 * 60 = 6
Santo = (1/2) 1956 = $978
\u5c0f\u660e\u67093+4=8\u4e2a
7 = 8
"""


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.mark.parametrize("line", _lines(RIGHT))
def test_right(line: str) -> None:
    assert [equation.holds for equation in equations(line)][-1:] == [True]
    assert False not in [equation.holds for equation in equations(line)]


@pytest.mark.parametrize("line", _lines(WRONG))
def test_wrong(line: str) -> None:
    assert [equation.holds for equation in equations(line)][-1:] == [False]


@pytest.mark.parametrize("line", _lines(OPEN))
def test_not_judged(line: str) -> None:
    assert False not in [equation.holds for equation in equations(line)]


@pytest.mark.parametrize(
    "line", ["Total = 12", "no figures = here", "__import__('os').system('x') = 1", "", "=", "9" * 5000 + " = 1"]
)
def test_no_equation(line: str) -> None:
    assert [equation.holds for equation in equations(line) if equation.holds is not None] == []


def test_a_chain_is_judged_pair_by_pair() -> None:
    assert [equation.holds for equation in equations("2 + 3 = 5 * 2 = 10")] == [False, True]
    found = equations("\\[\n12 + 3 = 15\n= 3 * 5 = 16\n\\]")
    assert [(equation.left, equation.right, equation.holds) for equation in found] == [
        ("12 + 3", "15", True), ("15", "3 * 5", True), ("3 * 5", "16", False)
    ]  # fmt: skip


def test_operands_and_result_are_those_of_the_text() -> None:
    (found,) = equations("He pays $1,200 x 1.5 + 30% = $1,800.30 now")
    assert found.operands == (1200, Fraction("1.5"), 30)
    assert found.result == Fraction("1800.30")
    (bare,) = equations("5 = 5")
    assert bare.operands == () and bare.result == 5


def test_code_and_drawings_are_left_out() -> None:
    assert equations("```python\nx = 3\n2 + 2 = 5\n```\n2 + 2 = 4")[0].holds is True
    assert equations("[asy]\ndraw((0,0)--(1,1)); 1 + 1 = 3\n[/asy]") == []


def test_numbers_of_a_text() -> None:
    found = numbers("Twice 3,500 or 20% in room12, five of 3.5; 10 percent")
    twentieth, tenth = Fraction(1, 5), Fraction(1, 10)
    assert found == [2, 3500, 20, twentieth, 5, Fraction(7, 2), 10, tenth]


def test_units_of_one_quantity() -> None:
    assert convertible(["minutes", "hours"])
    assert not convertible(["minutes", "minute", "pounds", "apples"])


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 20_000 + "= 1",
        "1=" * 20_000,
        "\\frac{" * 5_000 + "1 = 2",
        ("1/2%!" * 30 + "=") * 12,
        "(" * 900 + "1" + ")" * 900 + " = 2",
        "9^9^9^9 = 1",
        "2^64 * 2^64 * 2^64 * 2^64 = 1",
        "1+" * 900 + "1 = 901",
        "[asy]" * 20_000 + "1 = 2",
        "``` = " * 20_000,
    ],
)
def test_hostile_texts_end(text: str) -> None:
    assert all(equation.holds is not False for equation in equations(text))
