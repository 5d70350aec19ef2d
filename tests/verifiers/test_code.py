"""The code verifier: what tests mean, what is refused before a token, what a hang costs, and that nothing is left."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Mapping
from pathlib import Path as File

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call, Capabilities, CodeSandbox, Powers, Site
from reason_engine.errors import RequestError, VerifierError
from reason_engine.profile import Profile
from reason_engine.settings import Settings
from reason_engine.types import CodeLimits, CodeResult, CodeTest, Path, Problem
from reason_engine.verifiers import sandbox as host
from reason_engine.verifiers.code import Code, Sandbox, program_of
from tests.verifiers.escapes import ABSOLUTES, FORGERIES, PROGRAMS
from tests.verifiers.sandboxed import attempt, leftovers, needs_limits, sandbox

SHORT = CodeLimits(3.0, 128)
ADD = "def add(a, b):\n    return a + b\n"


def site(code: CodeSandbox | None = None, meta: Mapping[str, object] | None = None) -> Site:
    def build(name: str, params: Mapping[str, object], param: str) -> Code:
        raise AssertionError

    return Site(Profile(), Capabilities(), Problem("?", meta=meta or {}), build, powers=Powers(code))


class Nothing:
    """A sandbox that runs nothing."""

    refusal = ""

    async def run(
        self, source: str, tests: object, limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        raise AssertionError("nothing is to run")


def checks(*texts: str) -> list[CodeTest]:
    return [CodeTest(check=text) for text in texts]


async def run(source: str, *tests: CodeTest, entry_point: str | None = None) -> list[CodeResult]:
    return await Sandbox().run(source, tests, SHORT, entry_point)


@needs_limits
async def test_the_score_is_the_fraction_of_asserts_that_pass(no_call: Call) -> None:
    tests = ["assert add(1, 2) == 3", "assert add(0, 0) == 0", "assert add('a', 'b') == 'ab'", "assert add(1, 1) == 3"]
    verifier = Code.model_validate({"tests": tests}).bind(site(Sandbox()))
    paths = [
        Path(0, "", f"Here it is.\n```python\n{ADD}```\nDone."),
        Path(1, "", "```python\ndef add(a, b) return a\n```"),
        Path(2, "", "no code"),
        Path(3, "", "```js\nadd\n```"),
    ]
    scores = await verifier.score(Problem("?"), paths, no_call)
    assert [score.value for score in scores] == [0.75, 0, 0, 0]
    assert scores[0].detail == "3 of 4 tests passed; test 4: AssertionError (line 1)"
    assert "SyntaxError" in scores[1].detail and "(<text>, line 1)" in scores[1].detail
    assert scores[3].detail == "no program"


@needs_limits
async def test_input_and_output() -> None:
    source = "import sys\nn = int(input())\nprint(f'twice  \\n{2 * n}')\nif n == 9: sys.exit(3)\nif n == 7: 1 / 0\n"
    results = await run(
        source,
        CodeTest(input="2\n", output="twice\n4"),
        CodeTest(input="2\n", output="twice\n5"),
        CodeTest(input="9\n", output="twice\n18"),
        CodeTest(input="7\n", output="twice\n14"),
        CodeTest(input="", output=""),
    )
    assert [result.passed for result in results] == [True, False, False, False, False]
    assert "printed 'twice  \\n4\\n', not 'twice\\n5'" in results[1].detail
    assert "status 3" in results[2].detail
    assert "ZeroDivisionError" in results[3].detail and "EOFError" in results[4].detail


@needs_limits
async def test_an_entry_point_is_called_with_what_json_can_say() -> None:
    source = "def swap(pair, times=1):\n    return (pair[1], {1: times}) if pair else True\n"
    results = await run(
        source,
        CodeTest(input=[[1, 2]], output=[2, {"1": 1}]),
        CodeTest(input=[[1, 2], 3], output=[2, {"1": 1}]),
        CodeTest(input=[[]], output=1),
        *checks("def check(candidate):\n    assert candidate([]) is True", "check = 1\nassert candidate([])"),
        entry_point="swap",
    )
    assert [result.passed for result in results] == [True, False, False, True, True]
    assert "returned" in results[1].detail
    (missing,) = await run(source, *checks("pass"), entry_point="swop")
    assert not missing.passed and "no 'swop'" in missing.detail


PROGRAM = """
import math
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

LIMIT = 10
class Empty(ValueError): pass
class Colour(Enum):
    RED = 1

@dataclass
class Point:
    x: int
    y: int
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
    def __len__(self): return 2
    def __getitem__(self, place): return (self.x, self.y)[place]
    def __enter__(self): return self
    def __exit__(self, *why): self.x = 0

class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item); return self
    def pop(self):
        if not self.items: raise Empty("nothing here")
        return self.items.pop()

def order(items): items.sort()
def each(function, items): return [function(item) for item in items]
def count(): yield from range(3)
def half(n): return Fraction(n, 2)
def words(text): return Counter(text.split())
def ends(items): return deque(items, 2)
def big(): return 3 ** 5000
def odd(): return "\\ud800", float("inf"), b"\\x00", {1, 2}, frozenset({3}), None, 2j
def fail(): raise KeyError("k")
def kind(): return int
def make(n): return lambda m: n + m
"""
SEMANTICS = [
    "assert LIMIT == 10 and isinstance(LIMIT, int)",
    "s = Stack()\ns.push(1).push([2])\nassert s.pop() == [2] and s.items == [1]",
    "try:\n    Stack().pop()\nexcept Empty as error:\n    assert str(error) == 'nothing here'\nelse:\n    assert False",
    "try:\n    Stack().pop()\nexcept ValueError:\n    pass\nelse:\n    assert False",
    "a = [3, 1, 2]\norder(a)\nassert a == [1, 2, 3]",
    "assert each(lambda x: x + 1, (1, 2)) == [2, 3] and each(len, ['ab']) == [2] and each(str, [1]) == ['1']",
    "assert list(count()) == [0, 1, 2] and next(count()) == 0 and sum(count()) == 3 and 2 in count()",
    "from fractions import Fraction as F\nassert half(3) == F(3, 2) and half(3) > 1",
    "assert words('a b a') == {'a': 2, 'b': 1}",
    "from collections import deque\nassert ends([1, 2, 3]) == deque([2, 3])",
    "assert big() == 3 ** 5000 and -big() < 0",
    "assert odd() == ('\\ud800', float('inf'), b'\\x00', {1, 2}, frozenset({3}), None, 2j)",
    "assert math.isclose(math.sqrt(2), 1.4142, abs_tol=1e-3)",
    "assert Point(1, 2) + Point(1, 1) == Point(2, 3) != Point(0, 0)",
    "p = Point(1, 2)\nassert isinstance(p, Point) and not isinstance(3, Point) and p.x == 1 and list(p) == [1, 2]",
    "with Point(1, 2) as p:\n    assert p[1] == 2 and len(p) == 2\nassert p.x == 0 and repr(p).startswith('Point')",
    "p = Point(1, 2)\np.x = 5\nassert p.x == 5 and not hasattr(p, 'z') and f'{p}' == 'Point(x=5, y=2)'",
    "assert Colour.RED == Colour.RED and Colour.RED.value == 1 and Colour['RED'] is Colour.RED",
    "try:\n    fail()\nexcept KeyError as error:\n    assert error.args == ('k',)",
    "assert kind() is int and make(2)(3) == 5",
]
NOT_SO = [
    "assert Point(1, 2) == (1, 2)",
    "assert not hasattr(Point(1, 2), 'x')",
    "each(open, ['/etc/passwd'])",
    "raise SystemExit(0)",
    "import sys\nsys.exit(0)",
    "def (",
    "undefined",
    "import pytest",
    "each(lambda x: 1 / 0, [1])",
    "order.__globals__['order'] = lambda x: x\nassert order.__code__ == 1",
]


@needs_limits
async def test_what_a_test_may_do_with_the_programs_objects() -> None:
    results = await run(PROGRAM, *checks(*SEMANTICS, *NOT_SO))
    assert [(text, result.detail) for text, result in zip(SEMANTICS, results, strict=False) if not result.passed] == []
    assert [text for text, result in zip(NOT_SO, results[len(SEMANTICS) :], strict=True) if result.passed] == []


@needs_limits
async def test_a_test_that_hangs_does_not_take_the_others_with_it() -> None:
    source = "def f(x):\n    while x: pass\n    return 1\n"
    tests = checks("assert f(1)", "assert f(0) == 1", "assert f(0) == 2", "assert f(0) == 1")
    results = await Sandbox().run(source, tests, CodeLimits(0.6, 128))
    assert [result.passed for result in results] == [False, True, False, True]
    assert results[0].detail == "out of time"


@pytest.mark.parametrize("mode", ["spaces", "plain"])
async def test_cancelling_kills_everything_at_once(mode: str) -> None:
    box, seen = sandbox(mode)
    task = asyncio.create_task(box.run("while True: pass", checks("pass"), CodeLimits(30.0)))
    async with asyncio.timeout(20):
        while len(leftovers(seen.ever)) < 3:  # the supervisor, the judge, the program
            await asyncio.sleep(0.01)
    async with asyncio.timeout(2):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert leftovers(seen.ever) == [] and not box.running


@needs_limits
async def test_only_so_many_run_at_once(no_call: Call) -> None:
    box = Sandbox(slots=1)
    most: list[int] = []

    class Counted(set[int]):
        def add(self, item: int, /) -> None:
            super().add(item)
            most.append(len(self))

    box.running = Counted()
    verifier = Code(tests=("assert add(1, 1) == 2",)).bind(site(box))
    scores = await verifier.score(Problem("?"), [Path(i, "", ADD) for i in range(3)], no_call)
    assert [score.value for score in scores] == [1, 1, 1] and most == [1, 1, 1]


ALWAYS = [
    *("reading: passwd", "reading: own environment", "reading: keys in the environment"),
    *("writing: a file in shared memory", "network: tcp", "processes: fork bomb", "processes: kill everything"),
    *("using up: one big block", "using up: endless output", "using up: deaf to every signal"),
]


@pytest.mark.parametrize("name", ALWAYS)
@needs_limits
async def test_no_way_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await attempt(PROGRAMS[name], "", monkeypatch)


@needs_limits
async def test_no_forged_verdict() -> None:
    names = ["equals everything", "leaves well", "a verdict on every handle"]
    for name in names:
        (result,) = await run(FORGERIES[name], *checks("assert f(2) == 4"))
        assert not result.passed, name
    (result,) = await run(ABSOLUTES["subtracts to nothing"], *checks("assert abs(f(2) - 4) < 1e-6"))
    assert not result.passed


def refused(file: File, reason: str) -> None:
    """A supervisor that cannot set its limits."""
    text = f'{{"refused": "{reason}"}}'.encode()
    file.write_text(f"import os\nos.write(1, {struct.pack('>I', len(text)) + text!r})\n")


async def test_where_it_cannot_limit_it_refuses(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path / "supervisor.py", "unshare: Operation not permitted")
    monkeypatch.setattr(host, "SUPERVISOR", tmp_path / "supervisor.py")
    box = Sandbox()
    with pytest.raises(VerifierError, match="unshare: Operation not permitted"):
        await box.run(ADD, checks("pass"), SHORT)
    assert "Landlock" in box.refusal == await box.probe()
    with pytest.raises(RequestError, match="Landlock") as caught:
        Code(tests=("pass",)).bind(site(box))
    assert caught.value.param == "reasoning.verifier"


async def test_other_systems_are_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    box = Sandbox()
    assert box.refusal == "it needs Linux, and this is darwin"
    with pytest.raises(VerifierError, match="darwin"):
        await box.run(ADD, checks("pass"), SHORT)


def test_off_unless_turned_on() -> None:
    with pytest.raises(RequestError, match="--allow-code") as caught:
        Code(tests=("pass",)).bind(site())
    assert caught.value.param == "reasoning.verifier"
    assert not Settings().code_execution


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({}, "tests"),
        ({"tests": [" "]}, "tests.0"),
        ({"tests": ["pass", {"input": [1], "output": "1"}]}, "tests.1.input"),
        ({"tests": [{"input": "1", "output": 1}]}, "tests.0.output"),
        ({"tests": [{"input": "1", "output": 1}], "entry_point": "f"}, "tests.0.input"),
        ({"tests": ["x" * 100_001]}, "tests.0"),
    ],
)
def test_tests_that_mean_nothing_are_refused(params: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        Code.model_validate(params).bind(site(Nothing()))
    assert caught.value.param == f"reasoning.verifier.params.{param}"


def test_the_problems_own_tests() -> None:
    Code().bind(site(Nothing(), {"tests": ["pass"]}))
    with pytest.raises(RequestError, match="the problem's tests"):
        Code().bind(site(Nothing(), {"tests": [1]}))


@pytest.mark.parametrize(
    "params",
    [
        {"tests": "pass"},
        {"tests": ["pass"] * 257},
        {"tests": ["pass"], "language": "c"},
        {"tests": ["pass"], "seconds": 0},
        {"tests": ["pass"], "seconds": 31},
        {"tests": ["pass"], "memory_mb": 8},
        {"tests": ["pass"], "entry_point": "os.system"},
        {"tests": [{"input": "1"}]},
        {"test": ["pass"]},
    ],
)
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Code.model_validate(params)


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("a = 1", "a = 1"),
        ("```python\na\n```\nor\n```py\nb\n```", "b\n"),
        ("```\na\n```\n```text\n1\n```", "a\n"),
        ("```python\na\n", "a\n"),
        ("<think>```python\na\n```</think>```python\nb\n```", "b\n"),
        ("  ```Python title=x\n  a\n  ```\n", "  a\n"),
        ("```sh\nls\n```", ""),
        ("```python\ns = '```'\n```", "s = '```'\n"),
    ],
)
def test_the_program_of_an_answer(text: str, program: str) -> None:
    assert program_of(text) == program
