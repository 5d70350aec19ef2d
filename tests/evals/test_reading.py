"""The reading task: its documents state every answer once, and knowledge on against off is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.answers import Equality
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import SetupError
from reason_engine.evals.command import run
from reason_engine.evals.run import EvalPlan
from reason_engine.evals.solvers import EvalTarget, LocalSolver
from reason_engine.evals.spec import Spec
from reason_engine.knowledge import Library
from reason_engine.profile import Ask, Profile
from reason_engine.recipes.reading import ReadingTask, facts, write_documents


def reads(prompt: str, seed: int, index: int) -> str:
    """Answers with the number of the first quoted sentence that ends or begins as the question's words do."""
    lines = [line for line in prompt.splitlines() if line.startswith("[1]")]
    question = prompt.rsplit("\n\n", 1)[-1]
    wanted = {word for word in question.replace("?", "").split() if word[0].isupper()}
    sentences = lines[0][4:].split(". ") if lines else []
    best = max(sentences, key=lambda s: len(wanted & set(s.replace(".", "").split())), default="0")
    return "Answer: " + next((word.strip(".") for word in best.split() if word.strip(".").isdigit()), "?")


async def test_documents_make_the_difference(tmp_path: Path) -> None:
    assert write_documents(tmp_path, 3, 90) == 2
    task, equality = ReadingTask(facts=90), Equality()
    problems = task.problems(12, 3, None)
    assert problems == task.problems(12, 3, None) and len({p.question for p in problems}) == 12
    library = Library(tmp_path)
    await library.open()
    engine = Scripted(reads)
    await engine.start()
    solver = LocalSolver(engine, Profile(ask=Ask(sources="Sources:")), equality, knowledge=library)
    right = {False: 0, True: 0}
    for known in right:
        for problem in problems:
            reply = await solver.answer(problem, Spec("direct", {"knowledge": known}), 1)
            right[known] += await task.grade(problem, reply.answer, reply.text, equality)
    await equality.close()
    assert right[False] == 0 and right[True] >= 8


def test_every_fact_is_written_once_and_asked_once(tmp_path: Path) -> None:
    write_documents(tmp_path, 1, 100)
    text = "\n".join(path.read_text() for path in sorted(tmp_path.iterdir()))
    known = facts(1, 100)
    assert all(text.count(one.text) == 1 for one in known)
    assert len({one.question for one in known}) == 100 and known != facts(2, 100)


async def test_a_server_has_its_own_documents(tmp_path: Path) -> None:
    plan = EvalPlan((Spec("reading"),), (Spec("direct"),), limit=1)
    target = EvalTarget(url="http://127.0.0.1:1", knowledge=tmp_path)
    with pytest.raises(SetupError, match="--knowledge and --url exclude each other"):
        await run(plan, target, None, "", lambda *_: None)
