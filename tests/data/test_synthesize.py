"""Synthesis: what is right is kept with its provenance, everything else is accounted for, a broken run goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reason_engine.answers import Equality
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation
from reason_engine.data.outputs import Account
from reason_engine.data.synthesize.checks import cleaned_problem, problem_refusals
from reason_engine.data.synthesize.synthesize import SynthesizeConfig, synthesize
from reason_engine.data.synthesize.teacher import Teacher
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineDead, EngineError, SetupError, UnknownName
from reason_engine.profile import Ask, Profile

ROWS = [{"prompt": "What is 2 + 3?", "answer": "5"}, {"prompt": "What is 4 * 5?", "answer": "20"}]
SOLVED = {"2 + 3": "2 + 3 = 5\nAnswer: 5", "4 * 5": "4 * 5 = 20\nAnswer: 20.0"}
TOLD = "The right answer is"


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    found = Equality()
    yield found
    await found.close()


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def right(prompt: str, seed: int, index: int) -> str:
    return next(text for key, text in SOLVED.items() if key in prompt)


class Bench:
    """One input, one output, and runs over them."""

    def __init__(self, folder: Path, equality: Equality, rows: Sequence[Any] = ROWS) -> None:
        self.source, self.out, self.equality = (lines(folder / "in.jsonl", rows), folder / "out.jsonl", equality)
        self.concurrency = 1

    async def run(self, engine: Scripted, *, tokens: int | None = None, fresh: bool = False, **config: Any) -> Account:
        teacher = Teacher(engine, Profile(ask=Ask(steps="By steps.")), self.equality)
        found = await synthesize(
            self.source, self.out, SynthesizeConfig(**config), teacher,
            tokens=tokens, concurrency=self.concurrency, fresh=fresh,
        )  # fmt: skip
        attempts = [row for row in self.dropped() if "attempt" in row]
        assert (found.kept, found.dropped) == (len(self.kept()), len(attempts))
        assert found.attempts == found.kept + found.dropped
        assert found.by_reason == Counter(row["reason"] for row in attempts)
        return found

    def kept(self) -> list[dict[str, Any]]:
        return read(self.out)

    def dropped(self) -> list[dict[str, Any]]:
        return read(self.out.with_name("out.dropped.jsonl"))


class InTurn:
    """Replies by question, one after another."""

    def __init__(self, **replies: Sequence[str]) -> None:
        self._replies = {key: iter(texts) for key, texts in replies.items()}

    def __call__(self, prompt: str, seed: int, index: int) -> str:
        return next(next(texts) for key, texts in self._replies.items() if key in prompt)


async def test_right_solutions_are_messages_with_provenance(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality), Scripted(right, name="m")
    found = await bench.run(engine, suffix="Think step by step.")
    first, second = bench.kept()
    assert first["messages"] == [
        {"role": "user", "content": "What is 2 + 3?\nThink step by step."},
        {"role": "assistant", "content": SOLVED["2 + 3"]},
    ]
    assert second["provenance"].items() >= {
        ("method", "rejection-sampling"), ("file", str(bench.source)), ("line", 2), ("attempt", "2/0"),
        ("model", "m"), ("strategy", "chain-of-thought"), ("judged_by", "reference"), ("answer", "20"),
    }  # fmt: skip
    assert engine.requests == 2, "no attempt is made beyond the first right one"
    assert found.tokens == engine.generated
    assert found.problems == {"solved": 2, "unsolved": 0}
    assert all("By steps." in str(request.prompt) for request in engine.log)
    assert [row.answer.content for row in read_rows(bench.out, Conversation)] == list(SOLVED.values())


async def test_every_attempt_is_accounted_for(tmp_path: Path, equality: Equality) -> None:
    said = ["Answer: 6", "no idea", "a\nAnswer: 5", "a\n Answer: 5", "b\nAnswer: 5", "c\nAnswer: 5"]
    bench = Bench(tmp_path, equality, ROWS[:1])
    found = await bench.run(Scripted(InTurn(q=said, What=said)), attempts=6, keep=3)
    assert [row["messages"][1]["content"] for row in bench.kept()] == [said[2], said[4], said[5]]
    assert [(row["attempt"], row["reason"]) for row in bench.dropped()] == [
        ("1/0", "wrong"), ("1/1", "no-answer"), ("1/3", "duplicate"),
    ]  # fmt: skip
    assert bench.dropped()[0]["evidence"] == {"wanted": "5", "found": "6"}
    assert bench.dropped()[0]["text"] == "Answer: 6"
    assert found.attempts == 6


async def test_problems_without_answers_are_solved_by_agreement(tmp_path: Path, equality: Equality) -> None:
    asked = [{"prompt": row["prompt"]} for row in ROWS]
    bench = Bench(tmp_path, equality, asked)
    said = {"2 + 3": ["a\nAnswer: 5", "b\nAnswer: 5.0", "Answer: 6"], "4 * 5": ["Answer: 1", "Answer: 2", "Answer: 3"]}
    found = await bench.run(Scripted(InTurn(**said)), format="prompt", attempts=3, keep=2, agree=0.6, suffix="Go.")
    assert [row["messages"][0]["content"] for row in bench.kept()] == ["What is 2 + 3?\nGo."] * 2
    assert {row["provenance"]["judged_by"] for row in bench.kept()} == {"agreement"}
    assert found.by_reason == {"wrong": 1, "no-agreement": 3}
    with pytest.raises(SetupError, match="fits no format"):
        await bench.run(Scripted(right), fresh=True)


async def test_a_text_that_was_cut_is_not_learned(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality, ROWS[:1]), Scripted(lambda *_: "Answer: 5 and so on")
    teacher = Teacher(engine, Profile(), equality, max_tokens=2)
    found = await synthesize(bench.source, bench.out, SynthesizeConfig(attempts=2), teacher)
    assert found.by_reason == {"cut-off": 2}


async def test_star_rationalises_what_nothing_solved(tmp_path: Path, equality: Equality) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if TOLD in prompt:
            assert "The right answer is 20." in prompt
            return "4 * 5 is 20, as the hint says\nAnswer: 20" if seed % 2 else "4 * 5 = 20\nAnswer: 20"
        return SOLVED["2 + 3"] if "2 + 3" in prompt else "Answer: 21"

    bench = Bench(tmp_path, equality)
    found = await bench.run(Scripted(reply), attempts=2, hints=8)
    first, second = bench.kept()
    assert first["provenance"]["method"] == "rejection-sampling"
    assert second["provenance"]["method"] == "rationalisation"
    assert second["messages"][0]["content"] == "What is 4 * 5?", "the hint is not learned"
    assert "hint" not in second["messages"][1]["content"]
    assert found.by_reason["wrong"] == 2
    assert set(found.by_reason) <= {"wrong", "tells-the-hint"}
    assert found.problems == {"solved": 2, "unsolved": 0}


async def test_a_hint_is_for_what_nothing_solved(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality, ROWS[:1]), Scripted(InTurn(What=["Answer: 5", "no", "no"]))
    await bench.run(engine, attempts=3, keep=2, hints=4)
    assert engine.requests == 3 and not any(TOLD in str(request.prompt) for request in engine.log)


async def test_without_hints_it_stays_unsolved(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality)
    found = await bench.run(Scripted(lambda prompt, *_: "Answer: 5"), attempts=3)
    assert found.problems == {"solved": 1, "unsolved": 1}
    assert found.by_reason == {"wrong": 3}


async def test_a_verifier_by_name_decides(tmp_path: Path, equality: Equality) -> None:
    good, bad = "Answer: 5 * (10 - 4) - 6 = 24", "Answer: 4 + 5 + 6 + 10 = 25"
    rows = [{"prompt": "Use the numbers 4 5 6 10 and + - * / to make 24.", "answer": "unused"}]
    bench = Bench(tmp_path, equality, rows)
    found = await bench.run(Scripted(InTurn(Use=[bad, "none", good])), verifier="countdown", attempts=3)
    assert [row["messages"][1]["content"] for row in bench.kept()] == [good]
    assert bench.kept()[0]["provenance"].items() >= {("judged_by", "countdown"), ("score", 1.0)}
    assert found.by_reason == {"wrong": 1, "no-answer": 1}


async def test_what_a_verifier_cannot_judge_is_named(tmp_path: Path, equality: Equality) -> None:
    rows = [{"messages": [{"role": "user", "content": "hm?"}, {"role": "assistant", "content": "so"}]}]
    bench = Bench(tmp_path, equality, rows)
    found = await bench.run(Scripted(lambda *_: "Answer: 1"), verifier="countdown", attempts=1)
    assert found.by_reason == {"unverifiable": 1}
    assert "finds no numbers" in bench.dropped()[0]["evidence"]["said"]


async def test_a_vote_decides_where_nobody_knows(tmp_path: Path, equality: Equality) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{word}?"}, {"role": "assistant", "content": "so"}]}
        for word in ("agreed", "split")
    ]
    bench = Bench(tmp_path, equality, rows)
    replies = InTurn(
        agreed=["a\nAnswer: 1/2", "b\nAnswer: 3", "c\nAnswer: 0.5", "d\nAnswer: 0.50", "Answer: 4"],
        split=["Answer: 1", "Answer: 2", "Answer: 3", "Answer: 3", "x"],
    )
    found = await bench.run(Scripted(replies), attempts=5, keep=2, agree=0.6)
    assert [row["messages"][1]["content"][0] for row in bench.kept()] == ["a", "c"]
    assert bench.kept()[0]["provenance"]["judged_by"] == "agreement"
    assert found.by_reason == {"wrong": 2, "enough": 1, "no-agreement": 4, "no-answer": 1}


async def test_problems_are_written_and_only_new_ones_are_solved(tmp_path: Path, equality: Equality) -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        if "Write one more problem" not in prompt:
            return f"by steps {seed}\nAnswer: 7"
        assert ROWS[0]["prompt"] in prompt and ROWS[1]["prompt"] in prompt
        return next(texts)

    texts = iter(["Problem: What is 3 + 4?\nAnswer: 7", "What is 2 + 3?", "", "What  is 3 + 4?", "How much is 9 - 2?"])
    bench = Bench(tmp_path, equality)
    found = await bench.run(Scripted(reply), write=5, attempts=2)
    assert [row["messages"][0]["content"] for row in bench.kept()] == ["What is 3 + 4?", "How much is 9 - 2?"]
    assert found.problems == {"written": 5, "refused": 3, "solved": 2, "unsolved": 0}
    refused = [row for row in bench.dropped() if row.get("stage") == "problem"]
    assert [(row["written"], row["reason"]) for row in refused] == [
        (1, "duplicate"), (2, "no-text"), (3, "duplicate"),
    ]  # fmt: skip
    assert refused[0]["evidence"] == {"of": "example 1"}


def test_written_problems_are_read_without_label_and_solution() -> None:
    assert cleaned_problem("**New Problem:** Two and two?\n\n**Solution:** four") == "Two and two?"
    assert cleaned_problem("Problem 4:\nTwo?\nProblem 5:\nThree?") == "Two?"
    assert cleaned_problem("The problem of two is old.") == "The problem of two is old."


def test_a_written_problem_that_is_nearly_one_before_is_not_new() -> None:
    story = (
        "Mira keeps bees behind the old mill and counts 12 frames of each hive before she opens the gate. "
        "How many frames are there if every one of the eleven hives by the brook is full?"
    )
    texts = [story.replace("brook", "river"), "Quite another story of 3 pears.", "quite  another story of 3 PEARS."]
    found = problem_refusals({n: {"text": text, "finish": "stop"} for n, text in enumerate(texts)}, [story])
    assert [refusal and (refusal.reason, refusal.evidence["of"]) for refusal in found.values()] == [
        ("near-duplicate", "example 1"), None, ("duplicate", "written 1"),
    ]  # fmt: skip


async def test_turns_before_the_question_are_kept(tmp_path: Path, equality: Equality) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 3?"}]
    bench, engine = Bench(tmp_path, equality, [{"prompt": turns, "answer": "5"}]), Scripted(right)
    await bench.run(engine)
    assert bench.kept()[0]["messages"][:2] == turns
    assert "<system>\nBe brief." in str(engine.log[0].prompt)


async def test_thinking_is_kept_apart(tmp_path: Path, equality: Equality) -> None:
    bench = Bench(tmp_path, equality, ROWS[:1])
    await bench.run(Scripted(lambda *_: "hm, 2 and 3</think>\nAnswer: 5", thinks=True))
    assert bench.kept()[0]["messages"][1] == {
        "role": "assistant", "content": "Answer: 5", "reasoning": "hm, 2 and 3",
    }  # fmt: skip


async def test_any_strategy_by_name_may_solve(tmp_path: Path, equality: Equality) -> None:
    bench, engine = Bench(tmp_path, equality), Scripted(right)
    found = await bench.run(engine, strategy="self-consistency", options={"n": 3})
    assert engine.samples == 6 and found.kept == 2
    assert bench.kept()[0]["provenance"]["strategy"] == "self-consistency"


async def test_the_budget_holds_and_a_larger_one_goes_on(tmp_path: Path, equality: Equality) -> None:
    rows = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(10)]
    bench = Bench(tmp_path, equality, rows)
    engine = Scripted(lambda prompt, *_: f"it is\nAnswer: {int(prompt.split('is ')[1].split(' ')[0]) + 1}")
    first = await bench.run(engine, tokens=25)
    assert first.tokens == engine.generated <= 25
    assert 0 < first.kept < 10 and first.not_attempted == 10 - first.kept
    again = await bench.run(engine, tokens=10_000)
    assert (again.kept, again.not_attempted, again.tokens) == (10, 0, engine.generated)
    requests = engine.requests
    assert (await bench.run(engine)).kept == 10 and engine.requests == requests


async def test_a_run_that_was_broken_off_goes_on_to_the_same_end(tmp_path: Path, equality: Equality) -> None:
    rows = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(8)]

    def reply(prompt: str, seed: int, index: int) -> str:
        number = int(prompt.split("is ")[1].split(" ")[0]) + 1
        return f"seed {seed}\nAnswer: {number + seed % 3}"

    (tmp_path / "whole").mkdir()
    whole = Bench(tmp_path / "whole", equality, rows)
    await whole.run(Scripted(reply), attempts=5, keep=2)
    bench, made = Bench(tmp_path, equality, rows), list[int]()
    bench.concurrency = 3

    def fails(request: Any, index: int, position: int) -> None:
        made.append(1)
        if len(made) > 50:
            raise EngineDead("gone")

    with pytest.raises(EngineError):
        await bench.run(Scripted(reply, fail=fails), attempts=5, keep=2)
    found = await bench.run(Scripted(reply), attempts=5, keep=2)

    def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "file": "", "provenance": {**row.get("provenance", {}), "file": ""}} for row in rows]

    assert plain(bench.kept()) == plain(whole.kept())
    assert plain(bench.dropped()) == plain(whole.dropped())
    assert found.kept > 8


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"strategy": "directly"}, UnknownName, "did you mean 'direct'"),
        ({"strategy": "direct", "options": {"n": 1}}, SetupError, "strategy 'direct': n: "),
        ({"verifier": "exactly"}, UnknownName, "did you mean 'exact'"),
        ({"verifier": "countdown", "params": {"goal": 1}}, SetupError, "verifier 'countdown': goal: "),
    ],
)
async def test_what_is_wrong_is_said_before_a_token_is_spent(
    tmp_path: Path, equality: Equality, config: dict[str, Any], error: type[Exception], said: str
) -> None:
    bench, engine = Bench(tmp_path, equality), Scripted(right)
    with pytest.raises(error, match=said):
        await bench.run(engine, **config)
    assert engine.requests == 0 and not list(tmp_path.glob("out.*"))


async def test_rows_that_are_no_problems_are_refused(tmp_path: Path, equality: Equality) -> None:
    with pytest.raises(SetupError, match="format text holds no problems to solve"):
        await Bench(tmp_path, equality, [{"text": "t"}]).run(Scripted(right))
    bench = Bench(tmp_path, equality, [*ROWS, {"prompt": "", "answer": "3"}])
    found = await bench.run(Scripted(right))
    assert (found.rows, found.bad_rows, found.kept) == (3, 1, 2)
    assert bench.dropped()[0].items() >= {("line", 3), ("reason", "bad-row")}
