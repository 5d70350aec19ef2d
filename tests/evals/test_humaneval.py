"""Functions graded by their tests, in the sandbox: what counts as the program, and who allows it to run."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.answers import Equality
from reason_engine.cli.main import main
from reason_engine.contracts import Task
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.evals.datasets.humaneval import HumanEval
from reason_engine.evals.records import RecordFile
from reason_engine.evals.run import EvalPlan, evaluate
from reason_engine.evals.solvers import LocalSolver
from reason_engine.evals.spec import Spec
from reason_engine.profile import Profile
from reason_engine.types import CodeLimits, CodeResult, CodeTest, Problem
from reason_engine.verifiers.sandbox import Sandbox
from tests.verifiers.sandboxed import needs_limits

FILE = "humaneval/HumanEval.jsonl.gz"
WHOLE = "def whole(x):\n    return floor(x)\n"


class Says:
    """A sandbox that runs nothing and remembers what it was asked to run."""

    refusal = ""

    def __init__(self, passed: bool = True) -> None:
        self.passed, self.sources = passed, list[str]()

    async def run(
        self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        self.sources.append(source)
        return [CodeResult(self.passed)] * len(tests)


@pytest.fixture
def problems(data: Path) -> list[Problem]:
    return HumanEval().problems(None, 0, data)


def task(sandbox: Says | Sandbox) -> Task:
    return HumanEval().graded_in(sandbox)


def fenced(*programs: str) -> str:
    return "Here it is.\n" + "\nand\n".join(f"```python\n{program}```" for program in programs) + "\nDone."


def test_the_question_shows_the_function_and_hides_its_tests(problems: list[Problem]) -> None:
    first = problems[0]
    assert first.question.startswith("Complete this Python function.")
    assert '```python\nfrom math import floor\n\n\ndef whole(x: float) -> int:\n    """The' in first.question
    assert "check" not in first.question and "2.5" not in first.question
    assert first.reference is None and "tests" not in first.meta  # the verifier `code` would read those


@needs_limits
@pytest.mark.parametrize(
    ("index", "text", "right"),
    [
        (0, fenced("from math import floor\n\n" + WHOLE), True),
        (0, fenced(WHOLE), True),  # its import is the question's
        (0, fenced("    return floor(x)\n"), True),  # only the body
        (0, fenced("def whole(x):\n    return int(x)\n"), False),
        (0, fenced("def other(x):\n    return floor(x)\n"), False),
        (0, fenced("def whole(x):\n    while True: pass\n"), False),
        (0, fenced("def whole(x) return floor(x)\n"), False),
        (0, "The floor of x.", False),
        (0, "", False),
        (1, fenced("def four_times(x):\n    return twice(twice(x))\n"), True),  # its helper is the question's
        (1, fenced("def four_times(x):\n    return twice(x)\n"), False),
    ],
)
async def test_a_program_counts_where_all_tests_pass(
    index: int, text: str, right: bool, data: Path, problems: list[Problem]
) -> None:
    graded = HumanEval(seconds=1.0).graded_in(Sandbox())
    assert await graded.grade(problems[index], None, text, Equality()) is right


@needs_limits
async def test_a_program_that_was_read_as_the_answer_is_the_one_that_counts(problems: list[Problem]) -> None:
    text = fenced(WHOLE, "print(whole(2.5))\n")
    assert await task(Sandbox()).grade(problems[0], WHOLE, text, Equality())


async def test_nothing_runs_without_a_program_or_without_a_sandbox(problems: list[Problem]) -> None:
    says = Says()
    assert not await task(says).grade(problems[0], None, " \n", Equality())
    assert says.sources == []
    with pytest.raises(SetupError, match="sandbox"):
        await HumanEval().grade(problems[0], None, fenced(WHOLE), Equality())


async def test_a_run_without_permission_is_refused_before_a_token(data: Path) -> None:
    engine = Scripted(lambda p, s, i: fenced(WHOLE))
    plan = EvalPlan((Spec("humaneval"),), (Spec("direct"),), data=data)
    async with LocalSolver(engine, Profile()) as solver:
        with pytest.raises(SetupError, match=r"'humaneval' runs the programs.*--allow-code"):
            await evaluate(plan, solver, RecordFile(None))
        assert engine.requests == 0
        records = await evaluate(plan, solver, RecordFile(None), sandbox=Says())
    assert [record.correct for record in records] == [True, True]


async def test_repeats_are_answered_with_seeds_of_their_own_and_go_on(data: Path, tmp_path: Path) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        seeds.append(seed)
        return fenced(WHOLE)

    seeds: list[int] = []
    file = RecordFile(tmp_path / "answers.jsonl")

    async def run(repeats: int) -> list[tuple[int, int]]:
        plan = EvalPlan((Spec("humaneval"),), (Spec("direct"),), data=data, repeats=repeats, concurrency=1)
        async with LocalSolver(Scripted(reply), Profile()) as solver:
            return [(r.repeat, r.index) for r in await evaluate(plan, solver, file, sandbox=Says())]

    assert await run(1) == [(0, 0), (0, 1)]
    once = list(seeds)
    assert await run(3) == [(repeat, index) for repeat in range(3) for index in range(2)]
    assert seeds[:2] == once and len(seeds) == len(set(seeds)) == 6
    assert [record.repeat for record in file.load().values()] == [0, 0, 1, 1, 2, 2]


async def test_paths_are_graded_if_it_is_asked_for(data: Path) -> None:
    class Right(Says):
        async def run(
            self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
        ) -> list[CodeResult]:
            return [CodeResult("floor(x)\n" in source)] * len(tests)

    def reply(prompt: str, seed: int, index: int) -> str:
        return fenced(WHOLE) if index < 3 else fenced("def whole(x):\n    return int(x)\n")

    plan = EvalPlan((Spec("humaneval"),), (Spec("self-consistency", {"n": 4}),), limit=1, data=data)
    async with LocalSolver(Scripted(reply), Profile()) as solver:
        (plain,) = await evaluate(plan, solver, RecordFile(None), sandbox=Right())
        (graded,) = await evaluate(replace(plan, grade_paths=True), solver, RecordFile(None), sandbox=Right())
    assert (plain.paths, plain.paths_right, plain.unread, plain.cut) == (4, None, 0, 0)
    assert (graded.correct, graded.paths, graded.paths_right) == (True, 4, 3)


def test_an_older_file_has_one_answer_a_problem_and_no_counts(tmp_path: Path) -> None:
    row = {
        "task": "t", "strategy": "s", "index": 3, "seed": 0, "question": "?", "answer": None, "correct": False,
        "completion_tokens": 1, "internal_prompt_tokens": 1, "seconds": 0.1, "stopped": "done", "samples": 1,
        "error": None,
    }  # fmt: skip
    (tmp_path / "answers.jsonl").write_text(json.dumps(row) + "\n")
    (record,) = RecordFile(tmp_path / "answers.jsonl").load().values()
    assert (record.repeat, record.unread, record.cut, record.paths) == (0, None, None, None)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"pass_at": (2,)}, "pass@2 needs at least 2 answers"),
        ({"pass_at": (0,), "repeats": 2}, "pass@0"),
        ({"pass_at": (-1,)}, "pass@-1"),
    ],
)
def test_repeats_and_k_that_cannot_be(fields: dict[str, object], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        EvalPlan((Spec("humaneval"),), (Spec("direct"),), **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", "HumanEval.jsonl.gz"),
        (gzip.compress(b'{"prompt": "def f():\\n"}\n', mtime=0)[:-9], "HumanEval.jsonl.gz"),
        (gzip.compress(b"{", mtime=0), "HumanEval.jsonl.gz:1: not JSON"),
        (gzip.compress(b'{"prompt": "", "entry_point": "f"}', mtime=0), "HumanEval.jsonl.gz:1: the text field 'test'"),
        (
            gzip.compress(b'{"prompt": "def g(): 0", "entry_point": "f", "test": ""}', mtime=0),
            "problem 0 does not define.*'f'",
        ),
    ],
)
def test_a_damaged_file_is_named(content: bytes, said: str, data: Path) -> None:
    (data / FILE).write_bytes(content)
    with pytest.raises(SetupError, match=said):
        HumanEval().problems(None, 0, data)


def command(monkeypatch: pytest.MonkeyPatch, data: Path, *words: str) -> int:
    monkeypatch.setattr(
        "sys.argv", ["reason", "eval", "humaneval", "--data", str(data), "--engine", "scripted", *words]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@needs_limits
def test_the_command_reports_pass_at_k(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-s", "direct", "--allow-code", "--repeats", "3", "--pass-at", "1,2"]
    assert command(monkeypatch, data, *words) == 0
    text = capsys.readouterr().out
    assert "| pass@1 % | pass@2 % |" in text and "| direct | 2 | 0.0 |" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--allow-code"),
        (["--allow-code", "--pass-at", "2"], "pass@2 needs at least 2"),
        (["--pass-at", "many"], "--pass-at 'many'"),
        (["--pass-at", "-1"], "--pass-at '-1'"),
        (["--repeats", "0"], "--repeats"),
        (["--grade-paths", "--url", "http://127.0.0.1:1"], "--grade-paths and --url"),
    ],
)
def test_what_the_command_refuses(
    words: list[str], said: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, data, "-s", "direct", *words) == 2
    assert said in capsys.readouterr().err


def test_a_machine_that_cannot_limit_programs_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reason_engine.verifiers.sandbox.missing", lambda: "no seccomp")
    assert command(monkeypatch, data, "-s", "direct", "--allow-code") == 2
    assert "--allow-code: programs cannot be limited on this machine: no seccomp" in capsys.readouterr().err
