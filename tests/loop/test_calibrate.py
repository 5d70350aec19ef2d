"""Calibration as a whole on a scripted model, and what a mistake says."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from reason_engine.cli.main import main
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import ModelLoadError
from reason_engine.evals.spec import Spec, development_task
from reason_engine.loop import calibrate as command
from reason_engine.loop.calibrate import Calibration, Pool, View
from reason_engine.loop.fit import arms
from reason_engine.policy import Policy
from reason_engine.profile import FILE, Profile, read_profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.auto import Auto
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Problem, Sampling
from tests.models import write_model

FEW = ("direct", "chain-of-thought", "self-consistency")


def asks(words: int) -> str:
    """A question of so many words that has their number for an answer."""
    return " ".join(["How", "many", "are", str(words), *["word"] * (words - 4)])


def reply(prompt: str, seed: int, index: int) -> str:
    """Right at once on short questions, by steps on most others."""
    question = prompt.split("\n")[1]
    right = str(len(question.split()))
    if "step by step" in prompt:
        return f"one two three four five six seven eight\nAnswer: {right if seed % 4 else -1}"
    return f"Answer: {right if len(question.split()) < 9 else seed % 30}"


class Counting:
    """A task whose answer is the number of words."""

    def __init__(self, count: int) -> None:
        self.count = count

    def problems(self, limit: int | None, seed: int, data: Path | None) -> list[Problem]:
        raise AssertionError("a test problem was asked for")

    def development(self, limit: int | None, seed: int) -> list[Problem]:
        texts = [asks(4 if i % 2 else 40) for i in range(limit or self.count)]
        return [Problem(text, reference=str(len(text.split())), meta={"index": i}) for i, text in enumerate(texts)]

    async def grade(self, problem: Problem, answer: str | None, text: str, equality: object) -> bool:
        return answer == problem.reference


async def calibrated(limit: int = 24, only: tuple[str, ...] = FEW) -> tuple[Policy, Scripted, list[int]]:
    engine, heard = Scripted(reply, logprob=lambda p, t: -0.01), list[int]()
    options = Calibration(tasks=(Spec("counting"),), limit=limit, only=only)
    task = Counting(limit)
    questions = [command.Question(task, "counting", p) for p in task.development(limit, 0)]
    groups = command.grouped(questions, Profile(), only)
    await command.measure(groups, engine, Profile(), options, lambda task, arm, done, total: heard.append(done))
    return command.fitted(groups, "scripted", options), engine, heard


async def test_short_questions_get_a_direct_answer_and_long_ones_a_vote() -> None:
    policy, _, heard = await calibrated()
    short, long = policy.cases
    assert (short.words, long.words) == (8, None)
    assert [stage.strategy for stage in short.plans[-1].stages] == ["direct"]
    assert long.plans[-1].stages[-1].strategy == "self-consistency"
    assert (long.plans[-1].success or 0) > 0.9
    assert {point.strategy for point in policy.curves} >= {"direct:temperature=0", "self-consistency:n=16"}
    assert heard == list(range(1, len(heard) + 1))
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


async def test_what_was_fitted_is_what_auto_does() -> None:
    policy, engine, _ = await calibrated()
    profile = Profile(auto=policy)
    short = await solve(Auto(), Problem(asks(4)), engine, profile=profile)
    assert [node.name for node in short.trace.children(0)] == ["1 direct"]
    assert short.answer.value == "4"
    long = await solve(Auto(), Problem(asks(40)), engine, profile=profile)
    assert long.answer.value == "40"
    assert long.trace.nodes[0].notes["policy"] == "calibrated"


async def test_votes_of_every_size_are_drawn_once() -> None:
    _, engine, _ = await calibrated(limit=2, only=("self-consistency",))
    assert engine.samples == 2 * 16


async def test_a_view_gives_what_the_strategy_itself_would_spend() -> None:
    engine = Scripted(reply)
    pool = Pool(engine, "p")
    sizes: list[int] = []
    for n in (16, 4):
        view = View(pool)
        outcome = await solve(SelfConsistency(n=n), Problem("word " * 40), view)
        assert outcome.samples == n
        assert outcome.usage.completion == sum(view.spent.values())
        sizes.append(outcome.usage.completion)
    assert pool.drawn == sizes[0] == engine.generated > sizes[1]


def test_the_grid_holds_every_strategy_but_auto() -> None:
    from reason_engine.strategies import strategies

    assert {arm.stage.strategy for arm in arms(None)} == set(strategies) - {"auto"}
    judged = [arm.label for arm in arms(None, ("best-of-n",), ("process-rules",)) if "verifier" in arm.label]
    assert "best-of-n:n=16,verifier=process-rules" in judged
    assert "best-of-n:n=1,temperature=0,verifier=process-rules" in judged
    assert arms("countdown", (), ("process-rules",)) == arms("countdown")
    best = [arm.stage.fields for arm in arms("countdown", ("best-of-n",))]
    assert best and all(fields["verifier"] == "countdown" for fields in best)
    for arm in arms(None):
        strategies.get(arm.stage.strategy).model_validate(arm.stage.fields)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["reason", "calibrate", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["word-problem", "--out", "x"], "did you mean 'word-problems'"),
        (["gsm8k", "--out", "x"], "test problems only"),
        (["math500", "--out", "x"], "game24"),
        (["arithmetic", "--limit", "0"], "--limit"),
        (["arithmetic"], "--out FILE"),
        (["arithmetic", "--out", "/nowhere/at/all.json"], "/nowhere/at/all.json: cannot be written"),
        (["arithmetic", "--out", "/"], "is a folder"),
        (["arithmetic", "--out", "x", "-s", "dirct"], "did you mean 'direct'"),
        (["arithmetic", "--out", "x", "--model", "/no/model"], "/no/model"),
        (["arithmetic:steps=3", "--out", "x"], "no key 'steps'"),
        ([], "argument 'task'"),
    ],
)
def test_mistakes_exit_2_and_name_the_fault(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_a_profile(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / FILE
    words = ["arithmetic", "--engine", "scripted", "--limit", "2", "-s", "direct,self-consistency"]
    assert run(monkeypatch, *words, "--out", str(out), "--json") == 0
    *progress, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert progress[-1]["done"] == progress[-1]["total"] == 2 * len(arms(None, ("direct", "self-consistency")))
    auto = read_profile(tmp_path).auto
    assert auto is not None and auto.weights == "scripted"
    assert last["policy"]["weights"] == "scripted"
    assert auto.made["tasks"] == ["arithmetic"]
    assert run(monkeypatch, *words, "--out", str(out)) == 0
    assert "| plan of auto |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("auto", "where"),
    [
        ({"weights": "w", "cases": []}, "auto.cases"),
        ({"weights": "w"}, "auto.cases"),
        ({"weights": "w", "cases": [{"direct_tokens": 1, "plans": [{"stages": [], "tokens": 1}]}]}, "stages"),
        ({"weights": "w", "cases": 3}, "auto.cases"),
        ([], "auto"),
    ],
)
def test_a_corrupt_policy_is_one_clear_line(tmp_path: Path, auto: object, where: str) -> None:
    (tmp_path / FILE).write_text(json.dumps({"auto": auto}))
    with pytest.raises(ModelLoadError) as caught:
        read_profile(tmp_path)
    assert FILE in str(caught.value) and where in str(caught.value) and "\n" not in str(caught.value)


def rows(path: Path, count: int = 6) -> Path:
    """Labelled problems of the user's own."""
    made = [
        {"prompt": f"How many are {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


async def test_any_model_is_calibrated_on_the_users_own_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A checkpoint without a profile: it gets one, and `auto` follows it."""
    model, file = write_model(tmp_path / "model"), rows(tmp_path / "mine.jsonl")
    words = [f"rows:file={file},kind=number", "--model", str(model), "--engine", "embedded", "--limit", "4"]
    words += ["-s", "direct,chain-of-thought,self-consistency", "--max-tokens", "12", "--threads", "1", "--json"]
    assert await asyncio.to_thread(run, monkeypatch, *words) == 0
    *_, last = map(json.loads, capsys.readouterr().out.splitlines())
    policy = read_profile(model).auto
    assert policy is not None and policy.certainty == "answer"
    assert policy.made["tasks"] == [f"rows:file={file},kind=number"] and policy.made["max_tokens"] == 12
    assert last["policy"]["weights"] == policy.weights
    assert {point.problems for point in policy.curves} == {4}
    assert all(0 < point.tokens <= 16 * (12 + 32) for point in policy.curves)  # forced answers included
    engine = Embedded(model, inline=True, threads=1)
    await engine.start()
    try:
        asked = Problem("How many are 2 and 2?")
        outcome = await solve(Auto(), asked, engine, profile=read_profile(model), sampling=Sampling(max_tokens=12))
    finally:
        await engine.close()
    assert outcome.trace.nodes[0].notes["policy"] == "calibrated"


async def test_the_kind_of_the_rows_is_what_is_measured(tmp_path: Path) -> None:
    """A question that does not tell its kind, with answers that are to be read as numbers."""
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"prompt": "The parcel", "answer": "It weighs 7 kg.\nAnswer: 7 kg"}) + "\n")
    engine = Scripted(lambda p, s, i: "It must be\nAnswer: 7.0", logprob=lambda p, t: -0.01)
    task = development_task(Spec("rows", {"file": str(file), "kind": "number"}))
    questions = [command.Question(task, "rows", p) for p in task.development(None, 0)]
    groups = command.grouped(questions, Profile(), ("direct", "chain-of-thought"))
    options = Calibration(tasks=(Spec("rows"),), only=("direct", "chain-of-thought"))
    await command.measure(groups, engine, Profile(), options, lambda *told: None)
    assert [sample.right for sample in groups[0].samples.values()] == [True, True]
    assert any("boxed" in request.prompt for request in engine.log)  # the number was asked for


def test_bad_rows_are_told_before_a_token_is_spent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "How many?"}\n')
    out = ["--out", str(tmp_path / FILE), "--engine", "scripted"]
    for words, said in (
        ([f"rows:file={bad}"], "bad.jsonl"),
        ([f"rows:file={tmp_path / 'none.jsonl'}"], "none.jsonl"),
        ([f"rows:file={rows(tmp_path / 'r.jsonl')},kind=prime"], "kind"),
        ([f"rows:file={tmp_path / 'r.jsonl'}", "--max-tokens", "0"], "--max-tokens"),
    ):
        assert run(monkeypatch, *words, *out) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / FILE).exists()
