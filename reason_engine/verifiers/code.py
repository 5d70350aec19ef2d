"""`code`: the fraction of unit tests that a path's program passes, run where it can reach nothing.

Functional correctness: Chen et al. 2021, arXiv:2107.03374, section 2. Departure: a fraction instead of all or nothing,
so that a search has something to climb.

The program is the last fenced block of the answer, or all of it. A test is a piece of Python that raises where it fails
(`assert add(1, 2) == 3`), or `{"input", "output"}`: what a run reads and is to print; with `entry_point`, the arguments
of that function and what it is to return. A test sees the program's public names; `candidate` is the entry point.

What is kept from the program: files but the standard library's, writing, the network, other processes, starting
processes or threads, the server's environment, time and memory beyond its own. What it cannot forge: a verdict, since
tests run in another process and hold its objects by reference (`sandbox.object_link`). What no test of this kind can
exclude: a program that knows the tests' inputs, and objects of its own classes that compare equal to each other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from reason_engine.contracts import Call, CodeSandbox, Site, Verifier
from reason_engine.errors import RequestError
from reason_engine.types import CodeLimits, CodeTest, Path, Problem, Score
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.sandbox import Sandbox

__all__ = ["Code", "Sandbox", "program_of"]
MOST_TESTS, MOST_TEXT, MOST_PROGRAM = 256, 100_000, 1_000_000
"""Tests; characters of a test; characters of a program, more are cut off."""


class Example(BaseModel, extra="forbid", frozen=True):
    """What goes in and what is to come out: text, or with an entry point a list of arguments and a value."""

    input: str | list[Any] = Field("", description="standard input, or the arguments of the entry point")
    output: Any = Field(description="what is to be printed, or returned")


Check = str | Example
TESTS = TypeAdapter(tuple[Check, ...])


@verifiers.register("code")
class Code(BaseModel, extra="forbid", frozen=True):
    """Unit tests in a sandbox. Off unless the operator turns it on."""

    tests: tuple[Check, ...] = Field((), max_length=MOST_TESTS, description="default: the problem's own")
    language: Literal["python"] = "python"
    entry_point: str | None = Field(None, pattern=r"^[A-Za-z_]\w{0,99}$", description="the function that tests call")
    seconds: float = Field(5.0, gt=0, le=30, description="for all tests of a path together")
    memory_mb: int = Field(256, ge=64, le=2048, description="for each process")

    def bind(self, site: Site) -> Verifier:
        """With the operator's sandbox. Raises RequestError where there is none, or nothing to test."""
        sandbox = site.powers.code
        if sandbox is None or sandbox.refusal:
            refusal = f"{UNLIMITED}: {sandbox.refusal}" if sandbox else OFF
            raise RequestError(refusal, param=site.field, code="code_execution_off")
        return Bound(sandbox, self._tests(site), CodeLimits(self.seconds, self.memory_mb), self.entry_point)

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """Raises RequestError: nothing runs without a sandbox, and that comes by `bind`."""
        raise RequestError("the verifier 'code' has no sandbox here", param="reasoning.verifier")

    def _tests(self, site: Site) -> tuple[CodeTest, ...]:
        where = f"{site.field}.params.tests"
        tests = self.tests
        if not tests and "tests" in site.problem.meta:
            try:
                tests = TESTS.validate_python(site.problem.meta["tests"])
            except ValidationError as error:
                raise RequestError(f"the problem's tests: {error.errors()[0]['msg']}", param=where) from None
        if not tests:
            raise RequestError("the verifier 'code' needs unit tests: asserts, or {input, output} pairs", param=where)
        return tuple(self._test(test, f"{where}.{place}") for place, test in enumerate(tests))

    def _test(self, test: Check, where: str) -> CodeTest:
        if isinstance(test, str):
            if test.strip() and len(test) <= MOST_TEXT:
                return CodeTest(check=test)
            raise RequestError(f"{where}: a test has 1 to {MOST_TEXT:,} characters", param=where)
        if not isinstance(test.input, list if self.entry_point else str):
            arguments = "the list of arguments of the entry point"
            expected = arguments if self.entry_point else "text (name an entry_point to give arguments)"
            raise RequestError(f"{where}.input: expected {expected}", param=f"{where}.input")
        if not self.entry_point and not isinstance(test.output, str):
            raise RequestError(f"{where}.output: expected text", param=f"{where}.output")
        if len(str(test.input)) + len(str(test.output)) > MOST_TEXT:
            raise RequestError(f"{where}: a test has at most {MOST_TEXT:,} characters", param=where)
        return CodeTest(input=test.input, output=test.output)


@dataclass(frozen=True)
class Bound:
    """The verifier with everything it needs."""

    sandbox: CodeSandbox
    tests: tuple[CodeTest, ...]
    limits: CodeLimits
    entry_point: str | None

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """One score a path; the detail names the first test that failed. Raises VerifierError where nothing may run."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(path)) for path in paths]
        return [task.result() for task in tasks]

    async def _one(self, path: Path) -> Score:
        if not (program := program_of(path.solution)).strip():
            return Score(0.0, "code", "no program")
        results = await self.sandbox.run(program[:MOST_PROGRAM], self.tests, self.limits, self.entry_point)
        passed = sum(result.passed for result in results)
        detail = f"{passed} of {len(results)} tests passed"
        if failed := next(((number, one) for number, one in enumerate(results, 1) if not one.passed), None):
            detail += f"; test {failed[0]}: {failed[1].detail}"
        return Score(passed / len(results), "code", detail)


def program_of(text: str) -> str:
    """The last fenced block of an answer, or all of it where none is fenced; an open fence runs to the end. Blocks of
    another language are no program."""
    blocks = [found[2] for found in _FENCE.finditer(text) if found[1].lower() in _PYTHON]
    return blocks[-1] if blocks else "" if _FENCE.search(text) else text


_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
OFF = (
    "the verifier 'code' runs programs, and this server does not allow that; its operator turns it on with "
    "`reason serve --allow-code` (REASON_CODE_EXECUTION=true)"
)
UNLIMITED = "the verifier 'code' cannot limit what it runs on this server's machine"
_PYTHON = ("", "python", "py", "python3")
