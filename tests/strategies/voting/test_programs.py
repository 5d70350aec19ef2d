"""Programs that do the same are one vote: examples of a question, inputs near them, clusters by outputs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reason_engine.contracts import Powers
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import VerifierError
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.strategies.voting.equal import SameAnswers
from reason_engine.strategies.voting.harness import shown
from reason_engine.strategies.voting.programs import ProgramRuns
from reason_engine.types import CodeLimits, CodeResult, CodeTest, Limits, Problem
from reason_engine.verifiers.sandbox import Sandbox
from tests.strategies.voting.run import context, notes
from tests.verifiers.sandboxed import needs_limits

QUESTION = '''Complete this Python function.

```python
def middle(xs: list) -> float:
    """The median of a list of numbers.

    >>> middle([3, 1, 2])
    2
    >>> middle([1, 2, 3, 4])
    2.5
    """
```'''
RIGHT = """def middle(xs):
    xs, n = sorted(xs), len(xs)
    return xs[n // 2] if n % 2 else (xs[n // 2 - 1] + xs[n // 2]) / 2"""
ALSO = """import statistics
def middle(xs):
    return statistics.median(xs)"""
WRONG = """def middle(xs):
    return sorted(xs)[len(xs) // 2]"""
WRONGER = """def middle(xs):
    return sorted(xs)[len(xs) // 2] + 0"""
LUCKY = """def middle(xs):
    return 2 if xs == [3, 1, 2] else 2.5"""
ENDLESS = """def middle(xs):
    while len(xs) == 3:
        pass
    return 2.5"""


class Nothing:
    """A sandbox that fails, or that has no limits to set."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal

    async def run(
        self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        raise VerifierError("no sandbox today")


async def groups(*programs: str, question: str = QUESTION, entry_point: str | None = "middle") -> list[int | None]:
    """The number of each program's group's first program."""
    ctx = context("code", problem=Problem(question), code=Sandbox(), entry_point=entry_point)
    names = await SameAnswers().names(ctx, programs)
    firsts = {name: place for place, name in reversed(list(enumerate(names)))}
    return [None if name is None else firsts[name] for name in names]


@needs_limits
async def test_programs_that_do_the_same_are_one_vote_and_those_that_fail_the_question_abstain() -> None:
    assert await groups(RIGHT, WRONG, ALSO, WRONGER) == [0, None, 0, None]
    assert await groups(WRONG, WRONGER, ENDLESS) == [0, 0, 2]  # one of two each, and not the same one


@needs_limits
async def test_inputs_near_the_examples_tell_apart_what_the_examples_do_not() -> None:
    assert await groups(LUCKY, RIGHT, ALSO) == [0, 1, 1]


@needs_limits
async def test_what_a_program_prints_or_raises_or_changes_besides_does_no_harm() -> None:
    loud = f"{RIGHT}\nprint(middle([9]), '\x02')\nif __name__ == '__main__':\n    raise SystemExit(input())"
    broken = "import sys\nsys.exit(0)\n" + RIGHT
    assert await groups(RIGHT, loud, broken, "def middle(xs) return 1") == [0, 0, None, None]
    question = "Sort the list in place: `order([2, 1])`."
    sorts, keeps = "def order(xs):\n    xs.sort()", "def order(xs):\n    sorted(xs)"
    assert await groups(sorts, keeps, question=question, entry_point="order") == [0, 1]


@needs_limits
async def test_a_function_that_nobody_names_is_the_one_that_most_programs_define_last() -> None:
    question = "Write a function that doubles a number, e.g. twice(2) should return 4."
    texts = ["def twice(x):\n    return 2 * x", "def twice(n):\n    return n + n", "def twice(n):\n    return n ** 2"]
    assert await groups(*texts, question=question, entry_point=None) == [0, 0, 2]


@needs_limits
async def test_whole_programs_are_compared_by_what_they_print() -> None:
    question = "Write a program that doubles a number.\n\nInput:\n4\nOutput:\n8\n\nInput:\n5\nOutput:\n10\n"
    texts = ["print(2 * int(input()))", "n = int(input())\nprint(n + n)", "print(8)", "print(input() * 2)"]
    assert await groups(*texts, question=question, entry_point=None) == [0, 0, None, None]


async def test_where_nothing_runs_syntax_decides() -> None:
    spaced = RIGHT.replace(" // ", "//").replace("def middle(xs):", "def middle(xs):\n    # the median")
    for sandbox, question in ((None, QUESTION), (Nothing("no seccomp"), QUESTION), (Nothing(), QUESTION)):
        ctx = context("code", problem=Problem(question), code=sandbox, entry_point="middle")
        names = await SameAnswers().names(ctx, [RIGHT, spaced, ALSO])
        assert names[0] == names[1] != names[2]
        assert "syntax" in notes(ctx)["programs"]


@needs_limits
async def test_without_an_example_or_time_syntax_decides() -> None:
    for question, limits in (("Write middle.", None), (QUESTION, Limits(seconds=0.0001))):
        ctx = context("code", problem=Problem(question), code=Sandbox(), limits=limits)
        assert len(set(await SameAnswers().names(ctx, [RIGHT, ALSO]))) == 2
        assert "no example to run them on" in notes(ctx)["programs"]


async def test_a_program_is_run_once_and_its_tests_hold_no_output() -> None:
    class Counts(Nothing):
        async def run(
            self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
        ) -> list[CodeResult]:
            sources.append(source)
            assert [test.output for test in tests] == [""] * len(tests)
            return [CodeResult(False, "out of time")] * len(tests)

    sources: list[str] = []
    runs = ProgramRuns(QUESTION, "middle")
    await runs.compare(Counts(), [RIGHT, ALSO], 60)
    ran = len(sources)
    found = await runs.compare(Counts(), [RIGHT, ALSO, RIGHT], 60)
    assert len(sources) == ran == 4  # together, then one by one since that gave nothing
    assert found and found.head == (None, None, None)
    long = await runs.compare(Counts(), ["x = 1\n" * 50_000], 60)
    assert long and long.head == (None,) and len(sources) == 4


def reply(prompt: str, seed: int, index: int) -> str:
    return f"Here.\n```python\n{(WRONG, RIGHT, WRONGER, ALSO, WRONG)[index]}\n```\nDone."


async def voted(powers: Powers) -> Outcome:
    strategy = SelfConsistency(n=5)
    return await solve(strategy, Problem(QUESTION), Scripted(reply), powers=powers)


@needs_limits
async def test_a_vote_of_programs_takes_the_largest_cluster_that_the_question_allows() -> None:
    outcome = await voted(Powers(Sandbox()))
    assert outcome.answer.value == RIGHT and RIGHT in outcome.content
    assert outcome.answer.confidence == pytest.approx(2 / 5)
    assert "2 of 2 stated outputs" in outcome.trace.nodes[0].notes["programs"]
    assert (await voted(Powers())).answer.value == WRONG


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (2, 2.0, True),
        (0.1 + 0.2, 0.3, True),
        (True, 1, False),
        ((1,), [1], False),
        ({"b", "a"}, {"a", "b"}, True),
        ({"a": 1, "b": 2.0}, {"b": 2, "a": 1}, True),
        (iter([1]), [1], False),
        (range(2), range(0, 2), True),
        (object(), object(), True),
        ("1", 1, False),
        (float("nan"), float("nan"), True),
        (float("inf"), 1e300, False),
    ],
)
def test_values_that_are_equal_are_shown_alike(first: object, second: object, same: bool) -> None:
    assert (shown(first) == shown(second)) is same


def test_what_holds_itself_is_shown() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert shown(endless).startswith("[[")
