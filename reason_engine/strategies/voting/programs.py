"""Programs are the same where they do the same: clusters by outputs on the same inputs, run in the sandbox.

Li et al. 2022, arXiv:2203.07814, section 4.6 (AlphaCode): keep the programs that pass the question's own examples, then
cluster the rest by what they print on more inputs, and take one of the largest cluster; Shi et al. 2022,
arXiv:2204.11454 (MBR-exec): the outputs decide, not the text. Programs that get fewer of the stated outputs right than
the best of them do abstain: the question itself says that they are wrong. An input near an example on which most of
those that are left fail is taken for one that the question does not mean, and is left out.
Departures: the other inputs are changed examples, not a model's; a function's outputs are compared as values.

Where nothing may be run, or the question has no example, programs are the same by their syntax trees (the caller's).
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from reason_engine.contracts import CodeSandbox
from reason_engine.errors import VerifierError, first_error
from reason_engine.strategies.voting.examples import Example, examples
from reason_engine.strategies.voting.harness import BESIDE, END, MARK
from reason_engine.strategies.voting.near import near
from reason_engine.types import CodeLimits, CodeResult, CodeTest

HARNESS = FilePath(__file__).with_name("harness.py").read_text("utf-8")
TOGETHER, ONE_BY_ONE = CodeLimits(2.0, 512), CodeLimits(5.0, 512)
"""Of one program, over all inputs."""
LONGEST_PROGRAM = 100_000

Outputs = tuple[str, ...]
"""What a program gave on each input; `!` and why where it gave nothing."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Programs by what they did. `head` names the first program of each one's cluster, None where it abstains; `passed`
    of the stated outputs the best programs give."""

    head: tuple[str | None, ...]
    inputs: int
    stated: int
    passed: int


@dataclass
class ProgramRuns:
    """What the programs of one question did so far, so that none is run twice."""

    question: str
    entry_point: str | None
    _seen: dict[str, Outputs] = field(default_factory=dict[str, Outputs])
    _inputs: list[Example] = field(default_factory=list[Example])
    _name: str | None = None

    async def compare(self, sandbox: CodeSandbox, programs: Sequence[str], seconds: float) -> Judged | None:
        """The programs in clusters; None where the question has no example, or not all ran in these seconds."""
        if not self._inputs:
            self._name = self.entry_point or _usual_name(programs)
            given = examples(self.question, self._name)
            self._inputs = [*given, *near(given)]
        new = [program for program in dict.fromkeys(programs) if program not in self._seen]
        if not self._inputs:
            return None
        try:
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for program in new:
                    group.create_task(self._run(sandbox, program))
        except TimeoutError:
            return None
        except BaseExceptionGroup as errors:
            if isinstance(first_error(errors), VerifierError):
                return None
            raise first_error(errors) from None
        return _judged([self._seen[program] for program in programs], programs, self._inputs)

    async def _run(self, sandbox: CodeSandbox, program: str) -> None:
        """All calls in one process; where one of them hangs or ends it, those after it one by one."""
        inputs, found = self._inputs, list[str]()
        if len(program) > LONGEST_PROGRAM:
            found = ["!too long"] * len(inputs)
        elif inputs[0].whole:
            tests = [CodeTest(input=one.given, output=one.output or "") for one in inputs]
            found = [_printed(one) for one in await sandbox.run(program, tests, ONE_BY_ONE)]
        else:
            source = f"{HARNESS}\n\ntell({program!r}, {self._name!r})\n"
            (result,) = await sandbox.run(source, [_calls(inputs)], TOGETHER)
            found = _TOLD.findall(result.output)[: len(inputs)]
            if rest := inputs[len(found) :]:
                results = await sandbox.run(source, [_calls([one]) for one in rest], ONE_BY_ONE)
                found += [(_TOLD.findall(one.output) or [f"!{one.detail}"])[-1] for one in results]
        self._seen[program] = tuple(found)


def _judged(outputs: Sequence[Outputs], programs: Sequence[str], inputs: Sequence[Example]) -> Judged:
    stated = [place for place, example in enumerate(inputs) if example.output is not None]
    passed = [sum(one[place].partition(BESIDE)[0] == inputs[place].output for place in stated) for one in outputs]
    best = max(passed)
    left = [one for one, count in zip(outputs, passed, strict=True) if count == best]
    kept = [
        place
        for place, example in enumerate(inputs)
        if example.output is not None or 2 * sum(one[place].startswith("!") for one in left) <= len(left)
    ]
    first: dict[Outputs, str] = {}
    head: list[str | None] = []
    for program, one, count in zip(programs, outputs, passed, strict=True):
        shown = tuple(one[place] for place in kept)
        nothing = all(value.startswith("!") for value in shown)
        head.append(None if count < best or nothing else first.setdefault(shown, program))
    return Judged(tuple(head), len(kept), len(stated), best)


def _usual_name(programs: Sequence[str]) -> str | None:
    """The function that most programs define last."""
    names = Counter(name for program in programs if (name := _last_function(program)))
    return names.most_common(1)[0][0] if names else None


def _last_function(program: str) -> str | None:
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return next((node.name for node in reversed(body) if isinstance(node, ast.FunctionDef)), None)


def _calls(inputs: Sequence[Example]) -> CodeTest:
    """What the harness reads."""
    return CodeTest(input=f"[{', '.join(one.given for one in inputs)}]")


def _printed(result: CodeResult) -> str:
    """Lines without blanks at their ends; why there are none where the program failed."""
    lines = "\n".join(line.rstrip() for line in result.output.rstrip().splitlines())
    return lines if lines else f"!{result.detail or 'nothing'}"


_TOLD = re.compile(f"{MARK}([^{END}]*){END}")
