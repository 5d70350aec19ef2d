"""Every task: its problems are reproducible, its grade is exact, its bad inputs are named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from reason_engine.answers import Equality
from reason_engine.contracts import CodeTask, Task
from reason_engine.data.numbers import held_out, is_development
from reason_engine.errors import SetupError, UnknownName
from reason_engine.evals import tasks
from reason_engine.evals.datasets import choose_indices
from reason_engine.evals.datasets.game24 import Game24, Game24Tot
from reason_engine.evals.spec import DevelopmentTask, Spec, build, development_task
from reason_engine.recipes.mix import Mix
from reason_engine.recipes.puzzles import CountdownTask
from reason_engine.recipes.words import WordProblems
from reason_engine.types import CodeLimits, CodeResult, CodeTest, Problem
from reason_engine.verifiers.countdown import Countdown as Checker

SMALL = {name: {"first": 0, "last": 2} for name in ("game24", "game24-tot", "mix")}
READ = ("game24", "game24-tot", "gsm8k", "humaneval", "math500", "mix", "svamp")


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    it = Equality()
    yield it
    await it.close()


class FailsAll:
    """A sandbox in which every test fails."""

    refusal = ""

    async def run(
        self, source: str, tests: Sequence[CodeTest], limits: CodeLimits, entry_point: str | None = None
    ) -> list[CodeResult]:
        return [CodeResult(False)] * len(tests)


def small(name: str, data: Path) -> Task:
    """A task with what it needs: the puzzles that there are, a file for that of one's own rows."""
    given = {"file": data / "rows.jsonl"} if name == "rows" else SMALL.get(name, {})
    made = tasks.get(name)(**given)
    return made.graded_in(FailsAll()) if isinstance(made, CodeTask) else made


def problems(name: str, data: Path, limit: int | None = 2, seed: int = 1) -> list[Problem]:
    return small(name, data).problems(limit, seed, data)


def test_what_is_registered() -> None:
    assert {"countdown", "game24", "game24-tot", "gsm8k", "math500", "svamp", "word-problems"} <= set(tasks)
    with pytest.raises(UnknownName, match="did you mean 'game24'"):
        tasks.get("game-24")


@pytest.mark.parametrize("name", list(tasks))
async def test_every_task_repeats_itself_and_takes_no_abstention(name: str, data: Path, equality: Equality) -> None:
    found = problems(name, data)
    assert found == problems(name, data)
    assert len({problem.meta["index"] for problem in found}) == len(found) > 0
    assert not await small(name, data).grade(found[0], None, "24", equality)


@pytest.mark.parametrize("name", ["arithmetic", "countdown", "judgement", "units", "word-problems"])
def test_generated_problems_depend_on_seed_and_index_alone(name: str, data: Path) -> None:
    longer = problems(name, data, limit=5)
    assert longer[:2] == problems(name, data, limit=2)
    assert longer != problems(name, data, limit=5, seed=2)


@pytest.mark.parametrize("name", READ)
def test_a_task_without_its_data_says_so(name: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="--data"):
        problems(name, None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SetupError, match="does not exist"):
        problems(name, tmp_path / "nowhere")


async def test_game24_wordings_and_grade(data: Path, equality: Equality) -> None:
    ours, paper = (kind(first=1, last=1).problems(None, 0, data)[0] for kind in (Game24, Game24Tot))
    assert ours.question == "Use the numbers 4 5 6 10 and + - * / to make 24."
    assert paper.question == "Use numbers and basic arithmetic operations (+ - * /) to obtain 24. Input: 4 5 6 10"
    assert ours.meta["index"] == 1 and ours.reference is None
    task = Game24()
    assert await task.grade(ours, "(10 - 4) * 5 - 6 = 24", "", equality)
    assert not await task.grade(ours, "4 * 6 = 24", "", equality)
    assert not await task.grade(ours, "24", "", equality)


def test_game24_is_the_papers_split_by_default() -> None:
    assert (Game24().first, Game24().last) == (900, 999)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (2, 1), (3, 3)])
def test_game24_refuses_indices_that_are_not_there(first: int, last: int, data: Path) -> None:
    with pytest.raises(SetupError, match="first-last"):
        Game24(first=first, last=last).problems(None, 0, data)


def test_game24_names_a_bad_row(data: Path) -> None:
    (data / "game24/24.csv").write_text("Rank,Puzzles\n1,1 2 x 4\n")
    with pytest.raises(SetupError, match="puzzle 0"):
        Game24(first=0, last=0).problems(None, 0, data)


async def test_countdown_grade(equality: Equality) -> None:
    task = CountdownTask(size=(3, 3))
    problem = task.problems(1, 0, None)[0]
    assert len(problem.meta["numbers"]) == 3
    assert Checker().of(Problem(problem.question)).target == problem.meta["target"]
    assert not await task.grade(problem, str(problem.meta["target"]), "", equality)


async def test_word_problems_difficulty_and_grade(equality: Equality) -> None:
    task = WordProblems(steps=(2, 3), digits=(2, 2))
    found = task.problems(40, 0, None)
    assert {problem.meta["steps"] for problem in found} == {2, 3}
    reference = found[0].reference
    assert reference is not None
    assert await task.grade(found[0], f"{reference}.0", "", equality)
    assert not await task.grade(found[0], f"{reference}1", "", equality)


async def test_public_sets_grade_by_value(data: Path, equality: Equality) -> None:
    for name, good, bad in (("gsm8k", "1234.00", "1235"), ("svamp", "4", "5"), ("math500", "0.5", "2")):
        kind = tasks.get(name)
        problem = kind().problems(None, 0, data)[-1]
        assert await kind().grade(problem, good, "", equality), name
        assert not await kind().grade(problem, bad, "", equality), name


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("gsm8k", "gsm8k/test.jsonl", "{"),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "x"}'),
        ("math500", "math500/test500.jsonl", "[1]"),
        ("svamp", "svamp/SVAMP.json", "{}x"),
        ("svamp", "svamp/SVAMP.json", '[{"Body": "x"}]'),
        ("svamp", "svamp/SVAMP.json", "[1]"),
    ],
)
def test_damaged_files_are_named(name: str, file: str, text: str, data: Path) -> None:
    (data / file).write_text(text)
    with pytest.raises(SetupError, match=Path(file).name):
        problems(name, data, None)


def test_a_file_that_is_no_text(data: Path) -> None:
    (data / "gsm8k/test.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match=r"test\.jsonl"):
        problems("gsm8k", data, None)


def test_chosen_takes_a_reproducible_sample() -> None:
    assert choose_indices(5, None, 0) == choose_indices(5, 9, 0) == [0, 1, 2, 3, 4]
    sample = choose_indices(1000, 10, 3)
    assert sample == choose_indices(1000, 10, 3) == sorted(sample)
    assert sample != choose_indices(1000, 10, 4)


@pytest.mark.parametrize(
    "name", [name for name in tasks if name != "rows" and issubclass(tasks.get(name), DevelopmentTask)]
)
def test_development_problems_are_no_test_problems(name: str, data: Path) -> None:
    task = development_task(Spec(name))
    found = task.development(30, 0)
    assert found == task.development(30, 0) != task.development(30, 1)
    assert len({problem.meta["index"] for problem in found}) == len(found) > 1
    if name not in READ:
        tested = {problem.question for problem in tasks.get(name)().problems(200, 0, data)}
        assert len({problem.question for problem in found} - tested) > len(found) / 2


def test_development_puzzles_are_of_the_development_sets() -> None:
    for problem in development_task(Spec("game24")).development(None, 0):
        state = tuple(sorted(problem.meta["numbers"]))
        assert is_development(state) and state not in held_out()


@pytest.mark.parametrize("name", ["gsm8k", "humaneval", "math500", "svamp"])
def test_nothing_is_fitted_to_test_problems(name: str) -> None:
    with pytest.raises(SetupError, match=f"'{name}' has test problems only.*word-problems"):
        development_task(Spec(name))


async def test_a_mix_has_equal_parts_and_their_grades(data: Path, equality: Equality) -> None:
    mix = Mix(first=0, last=2)
    found = mix.problems(9, 0, data)
    assert [problem.meta["part"] for problem in found] == ["judgement", "word-problems", "game24"] * 3
    assert [problem.meta["index"] for problem in found] == list(range(9))
    judged, words, game = found[:3]
    assert await mix.grade(judged, None, f"Answer: {judged.reference}", equality)
    assert not await mix.grade(judged, None, "perhaps", equality)
    assert await mix.grade(words, words.reference, "", equality)
    assert not await mix.grade(game, "24", "", equality)
    assert len(mix.problems(1, 0, data)) == 3
    sums = Mix(direct="arithmetic", first=0, last=2).problems(3, 0, data)[0]
    assert sums.task == "arithmetic" and sums.reference


def test_a_judgement_holds_no_more_than_three_numbers() -> None:
    with pytest.raises(SetupError, match="at most 3"):
        build(tasks, Spec("judgement", {"size": "2-4"}))
