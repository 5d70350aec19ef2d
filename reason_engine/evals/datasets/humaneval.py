'''HumanEval: 164 functions to be written from their signature and docstring, graded by running unit tests.

Chen et al. 2021, arXiv:2107.03374, section 2; humaneval/HumanEval.jsonl.gz. An answer is right where its program passes
every test, in the sandbox. Departures: the question is put as a user of a chat would put it, with the signature in a
fenced block; the program is read from the answer as a vote reads it, and stands below the imports and helpers that the
question shows; a fenced body without its `def` goes on with the question's text.

    Complete this Python function. …                 ```python
    ```python                                        def double(x: int) -> int:
    def double(x: int) -> int:               ->          return 2 * x
        """Twice the number."""                      ```
    ```
'''

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from pydantic import Field

from reason_engine.answers import AnswerSpec, Equality, read
from reason_engine.contracts import CodeSandbox
from reason_engine.data import Options
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.datasets import choose_indices, find_file, read_lines
from reason_engine.types import CodeLimits, CodeTest, Problem
from reason_engine.verifiers.code import program_of

FILE = "humaneval/HumanEval.jsonl.gz"


@tasks.register("humaneval")
class HumanEval(Options):
    """`seconds` and `memory_mb`: what all tests of one program may take."""

    seconds: float = Field(10.0, gt=0, le=60)
    memory_mb: int = Field(512, ge=64, le=4096)

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        """Raises SetupError naming the file or the line at fault."""
        path = find_file(data, FILE, "humaneval")
        rows = read_lines(path, ("prompt", "entry_point", "test"))
        return [_problem(path, rows[index], index) for index in choose_indices(len(rows), limit, seed)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """Raises SetupError: nothing is run before `graded_in`."""
        raise SetupError("the task 'humaneval' runs programs, and has no sandbox to run them in")

    def graded_in(self, sandbox: CodeSandbox) -> Tested:
        return Tested(self, sandbox)


@dataclass(frozen=True)
class Tested:
    """The task with a sandbox to test programs in."""

    task: HumanEval
    sandbox: CodeSandbox

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        return self.task.problems(limit, seed, data)

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: Equality) -> bool:
        """Whether every test passes. Raises VerifierError where the sandbox fails."""
        entry_point, shown = problem.meta["entry_point"], problem.meta["signature"]
        program = _program(answer, text, entry_point)
        if not program.strip():
            return False
        limits = CodeLimits(self.task.seconds, self.task.memory_mb)
        tests = [CodeTest(check=problem.meta["check"])]
        (result,) = await self.sandbox.run(whole_program(shown, program, entry_point), tests, limits, entry_point)
        return result.passed


def _program(answer: str | None, text: str, entry_point: str) -> str:
    """What was read as the answer where it defines the function, else what the text gives."""
    found = read(text, AnswerSpec("code", entry_point=entry_point))
    known = (program for program in (answer, found and found.value) if program and defines(program, entry_point))
    return next(known, program_of(text))


def whole_program(shown: str, program: str, entry_point: str) -> str:
    """What is run: the program below what the question shows before the function, or, where it does not define the
    function, as that function's body."""
    if not defines(program, entry_point):
        return shown + indent(dedent(program), "    ")
    return f"{shown[: _start(shown, entry_point)]}\n{program}"


def defines(program: str, name: str) -> bool:
    """Whether it is Python that defines a function of that name."""
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name for node in tree.body)


def _start(shown: str, entry_point: str) -> int:
    """Where the function begins; -1: nowhere."""
    found = re.search(rf"^(?:async )?def {re.escape(entry_point)}\b", shown, re.MULTILINE)
    return found.start() if found else -1


def _problem(path: Path, row: Mapping[str, Any], index: int) -> Problem:
    shown, entry_point = row["prompt"], row["entry_point"]
    if _start(shown, entry_point) < 0:
        raise SetupError(f"{path}: problem {index} does not define the function {entry_point!r}")
    meta = {"index": index, "entry_point": entry_point, "signature": shown, "check": row["test"]}
    return Problem(QUESTION.format(shown=shown.strip("\n")), task="humaneval", meta=meta)


QUESTION = """\
Complete this Python function. Give the whole function in one code block.

```python
{shown}
```"""
