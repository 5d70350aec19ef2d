"""Runs on the scripted engine: grades, costs, seeds, resuming, failing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from reason_engine.answers import Equality
from reason_engine.contracts import Engine
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import ContextLengthExceeded, EngineError, SetupError
from reason_engine.evals.command import RunFolder
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.run import EvalPlan, evaluate
from reason_engine.evals.solvers import LocalSolver, Reply
from reason_engine.evals.spec import Spec
from reason_engine.profile import Profile
from reason_engine.types import Limits, Problem

RIGHT = {"1 1 4 6": "4 * 6 * 1 * 1 = 24", "4 5 6 10": "(10 - 4) * 5 - 6 = 24"}
GAME = Spec("game24", {"first": 0, "last": 2})


def player(prompt: str, seed: int, index: int) -> str:
    """Solves two of the three puzzles."""
    return next((f"I see.\nAnswer: {text}" for puzzle, text in RIGHT.items() if puzzle in prompt), "Answer: 8 * 3 = 24")


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    it = Equality()
    yield it
    await it.close()


def solver(engine: Engine, equality: Equality, limits: Limits | None = None) -> LocalSolver:
    return LocalSolver(engine, Profile(), equality, limits or Limits(), max_tokens=64)


def plan(data: Path, *strategies: Spec, concurrency: int = 2) -> EvalPlan:
    return EvalPlan((GAME,), strategies or (Spec("direct"),), data=data, concurrency=concurrency)


async def test_grades_and_counts(data: Path, tmp_path: Path, equality: Equality) -> None:
    engine = Scripted(player)
    file = RecordFile(tmp_path / "answers.jsonl")
    both = plan(data, Spec("direct"), Spec("self-consistency", {"n": 4}))
    heard: list[tuple[int, int]] = []
    records = await evaluate(
        both, solver(engine, equality), file, lambda record, done, total: heard.append((done, total))
    )
    assert [(r.strategy, r.index, r.correct) for r in records] == [
        ("direct", 0, True),
        ("direct", 1, True),
        ("direct", 2, False),
        ("self-consistency:n=4", 0, True),
        ("self-consistency:n=4", 1, True),
        ("self-consistency:n=4", 2, False),
    ]
    assert sum(r.completion_tokens for r in records) == engine.generated
    assert sum(r.internal_prompt_tokens for r in records) == engine.prompt_tokens
    assert [r.samples for r in records] == [1, 1, 1, 4, 4, 4]
    assert records[0].answer == RIGHT["1 1 4 6"] and records[0].stopped == "done"
    assert heard == [(done, 6) for done in range(1, 7)]
    assert set(file.load()) == {r.key for r in records}


async def test_seeds_follow_the_problem_not_the_order(data: Path, equality: Equality) -> None:
    seen: list[dict[str, set[int]]] = []
    for concurrency in (1, 3):
        seeds: dict[str, set[int]] = {}

        def note(prompt: str, seed: int, index: int, seeds: dict[str, set[int]] = seeds) -> str:
            seeds.setdefault(prompt, set()).add(seed)
            return "Answer: 1"

        await evaluate(plan(data, concurrency=concurrency), solver(Scripted(note), equality), RecordFile(None))
        seen.append(seeds)
    assert seen[0] == seen[1]
    assert len({frozenset(s) for s in seen[0].values()}) == 3


async def test_a_run_that_was_cut_goes_on(data: Path, tmp_path: Path, equality: Equality) -> None:
    path = tmp_path / "answers.jsonl"
    first = await evaluate(plan(data), solver(Scripted(player), equality), RecordFile(path))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:20])
    engine = Scripted(player)
    again = await evaluate(plan(data), solver(engine, equality), RecordFile(path))
    assert engine.requests == 2
    assert [replace(r, seconds=0) for r in again] == [replace(r, seconds=0) for r in first]
    done = Scripted(player)
    await evaluate(plan(data), solver(done, equality), RecordFile(path))
    assert done.requests == 0


async def test_answers_to_other_problems_are_not_taken_over(data: Path, tmp_path: Path, equality: Equality) -> None:
    file = RecordFile(tmp_path / "answers.jsonl")
    await evaluate(plan(data), solver(Scripted(player), equality), file)
    (data / "game24/24.csv").write_text("Rank,Puzzles\n1,1 1 1 24\n2,4 5 6 10\n3,3 3 8 8\n")
    with pytest.raises(SetupError, match="other problems"):
        await evaluate(plan(data), solver(Scripted(player), equality), file)


async def test_an_engine_error_ends_the_run_and_keeps_what_is_done(
    data: Path, tmp_path: Path, equality: Equality
) -> None:
    def fail(request: object, index: int, position: int) -> None:
        if engine.requests == 2:
            raise EngineError("out of memory")

    engine = Scripted(player, fail=fail)
    file = RecordFile(tmp_path / "answers.jsonl")
    with pytest.raises(EngineError, match="out of memory"):
        await evaluate(plan(data, concurrency=1), solver(engine, equality), file)
    assert len(file.load()) == 1
    assert engine.running == 0


async def test_a_problem_over_the_context_is_wrong_not_fatal(data: Path, equality: Equality) -> None:
    class Narrow:
        name = "narrow"

        def __init__(self, equality: Equality) -> None:
            self.equality = equality

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *error: object) -> None:
            pass

        async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
            if problem.meta["index"] == 1:
                raise ContextLengthExceeded("too long", param="messages")
            return Reply("1", "1", 1, 1, 0.1, "done", 1)

    records = await evaluate(plan(data), Narrow(equality), RecordFile(None))
    assert [r.error for r in records] == [None, "too long", None]
    assert not records[1].correct and records[1].answer is None


async def test_a_budget_is_kept_per_problem(data: Path, equality: Equality) -> None:
    many = plan(data, Spec("self-consistency", {"n": 8}))
    records = await evaluate(many, solver(Scripted(player), equality, Limits(tokens=20)), RecordFile(None))
    assert all(r.completion_tokens <= 20 and r.stopped == "budget-tokens" for r in records)


@pytest.mark.parametrize("text", ["{", "[1]", '{"task": "x"}', "null"])
def test_a_damaged_answer_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(SetupError, match=r"answers\.jsonl:1"):
        RecordFile(path).load()


@pytest.mark.parametrize(("limit", "concurrency"), [(0, 1), (-1, 1), (1, 0)])
def test_bad_plans(limit: int, concurrency: int) -> None:
    with pytest.raises(SetupError):
        EvalPlan((GAME,), (Spec("direct"),), limit=limit, concurrency=concurrency)


def record(strategy: str, index: int, correct: bool) -> Record:
    return Record("t", strategy, index, 0, "q", "1", correct, 10, 20, 0.5, "done", 1)


def test_a_folder_keeps_commands_and_refuses_another_setup(tmp_path: Path) -> None:
    out = tmp_path / "out"
    RunFolder(out, {"model": "a"}, "reason eval x")
    folder = RunFolder(out, {"model": "a"}, "reason eval y")
    report = folder.finish([record("direct", 0, True), record("vote", 0, False)])
    assert report.about["commands"] == ["reason eval x", "reason eval y"]
    assert json.loads((out / "report.json").read_text())["rows"][0]["right"] == 1
    assert "`reason eval y`" in (out / "report.md").read_text()
    assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SetupError, match=r"model 'a'.*'b'"):
        RunFolder(out, {"model": "b"}, "reason eval z")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"commands": 1}'])
def test_a_damaged_run_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SetupError, match=r"run\.json"):
        RunFolder(tmp_path, {}, "c")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="--out"):
        RunFolder(tmp_path / "file" / "out", {}, "c")
