"""`reason data`: every command end to end, and one clear line with exit code 2 for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROWS = [{"prompt": "What is 2 + 3?", "answer": "5"}, {"prompt": "What  is 2 + 3?", "answer": "5"}]


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return lines(tmp_path / "in.jsonl", ROWS)


@pytest.mark.parametrize("command", ["generate", "check", "filter", "augment", "synthesize"])
def test_every_command_has_help(reason, command: str) -> None:
    ran = reason("data", command, "--help")
    assert ran.code == 0 and ran.out.startswith(f"Usage: reason data {command}")


def test_generate_writes_what_check_reads(reason, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    assert reason("data", "generate", "-f", "words", "-n", "20", "-o", str(out)).code == 0
    ran = reason("data", "check", str(out))
    assert ran.code == 0
    assert f"{out}: JSON lines; format messages, found by messages" in ran.out
    assert "rows 20, bad 0, duplicates 0" in ran.out and "tokens" in ran.out


def test_check_exits_2_on_bad_rows(reason, source: Path, tmp_path: Path) -> None:
    bad = lines(tmp_path / "bad.jsonl", [*ROWS, {"prompt": "q", "answer": {}}])
    ran = reason("data", "check", str(source), str(bad), "--json", "--tokenizer", "none")
    assert ran.code == 2
    good, found = map(json.loads, ran.out.splitlines())
    assert (good["rows"], good["bad"], good["duplicates"]) == (2, 0, 1)
    assert (found["rows"], found["bad"], found["duplicates"]) == (3, 1, 2)
    assert found["faults"] == [{"file": str(bad), "line": 3, "field": "answer", "message": "must be text or a number"}]


def test_filter_accounts_for_every_row(reason, source: Path, tmp_path: Path) -> None:
    test = lines(tmp_path / "test.jsonl", [{"q": "one two three four five six seven eight"}])
    more = lines(tmp_path / "more.jsonl", [{"text": "so one two three four five six seven eight nine"}])
    out = tmp_path / "out.jsonl"
    ran = reason("data", "filter", str(source), str(more), str(out), "--against", str(test), "--rules", "starter")
    assert ran.code == 0 and "read 3 = kept 1 + dropped 2" in ran.out
    assert read(out) == ROWS[:1]
    assert [row["reason"] for row in read(tmp_path / "out.dropped.jsonl")] == ["duplicate", "contaminated"]
    found = json.loads(reason("data", "filter", str(source), str(out), "--no-exact", "--near", "0", "--json").out)
    assert found["kept"] == 2 and found["config"]["near"] is None


def test_augment_by_synonyms_needs_no_model(reason, tmp_path: Path) -> None:
    source = lines(tmp_path / "in.jsonl", [{"text": "A large tree."}])
    words = ("data", "augment", str(source), str(tmp_path / "out.jsonl"), "--method", "synonyms")
    ran = reason(*words, "--engine", "nosuch")
    assert ran.code == 0 and "attempts 1 = kept 1 + dropped 0; 0 tokens" in ran.out
    assert read(tmp_path / "out.jsonl")[0]["text"] == "A big tree."


def test_augment_and_synthesize_with_an_engine(reason, source: Path, tmp_path: Path) -> None:
    """The scripted engine answers with the last line of what it is asked."""
    out = str(tmp_path / "a.jsonl")
    ran = reason("data", "augment", str(source), out, "--engine", "scripted", "--json")
    *progress, account = map(json.loads, ran.out.splitlines())
    assert progress == [{"done": 1, "of": "attempts"}, {"done": 2, "of": "attempts"}]
    assert (account["kept"], account["dropped"]) == (2, 0)
    problems = lines(tmp_path / "p.jsonl", [{"prompt": "7", "answer": "7"}, {"prompt": "8", "answer": "9"}])
    out = str(tmp_path / "s.jsonl")
    ran = reason("data", "synthesize", str(problems), out, "--engine", "scripted", "-s", "direct", "--attempts", "2")
    assert ran.code == 0, ran.err
    assert "attempts 3 = kept 1 + dropped 2" in ran.out and "wrong" in ran.out
    assert read(Path(out))[0]["messages"][1]["content"] == "Answer: 7"


def test_a_served_model_teaches(reason, server, tmp_path: Path) -> None:
    problems = lines(tmp_path / "p.jsonl", [{"prompt": "7", "answer": "7"}])
    out = tmp_path / "s.jsonl"
    ran = reason("data", "synthesize", str(problems), str(out), "--url", server.url, "-s", "direct")
    assert ran.code == 0, ran.err
    assert read(out)[0]["messages"][1]["content"] == "Answer: 7"
    assert read(out)[0]["provenance"]["model"] == "reason-nano"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "/no/such.jsonl"), "/no/such.jsonl: No such file"),
        (("check", "{in}", "--format", "alpacka"), "did you mean 'alpaca'"),
        (("check", "{in}", "--tokenizer", "/no"), "--tokenizer /no: "),
        (("filter", "{in}"), "at least one file to read and one to write"),
        (("filter", "{in}", "{in}"), "is read, so it cannot be written"),
        (("filter", "{in}", "{out}", "--near", "2"), "--near: "),
        (("filter", "{in}", "{out}", "--by", "rows"), "--by: "),
        (("filter", "{in}", "{out}", "--language", "xx"), "--language: 'xx' cannot be told"),
        (("filter", "{in}", "{out}", "--unknown-language", "flag"), "--unknown-language: "),
        (("filter", "{in}", "{out}", "--min-chars", "9", "--max-chars", "8"), "min_chars is over max_chars"),
        (("filter", "{in}", "{out}", "--rules", "/no.yaml"), "--rules /no.yaml: No such file"),
        (("filter", "{in}", "{out}", "--against", "/no.jsonl"), "/no.jsonl: No such file"),
        (("filter", "{in}", "/no/folder/out.jsonl"), "/no/folder/out.jsonl.part: No such file"),
        (("augment", "{in}", "{out}", "--method", "magic"), "--method: "),
        (("augment", "{in}", "{out}", "--rate", "2"), "--rate: "),
        (("augment", "{in}", "{out}", "--engine", "nosuch"), "no engine named 'nosuch'"),
        (("augment", "{in}", "{out}", "--url", "127.0.0.1"), "--url '127.0.0.1' is no address"),
        (("augment", "{in}", "{out}", "--engine", "scripted", "--strategy", "x"), "no strategy named 'x'"),
        (("augment", "{in}", "{out}", "--method", "synonyms", "--lexicon", "/no"), "--lexicon /no: "),
        (("synthesize", "{in}", "{out}", "--engine", "scripted", "--verifier", "exactly"), "did you mean 'exact'"),
        (("synthesize", "{in}", "{out}", "--engine", "scripted", "--set", "n=2"), "n: "),
        (("synthesize", "{in}", "{out}", "--attempts", "0"), "--attempts: "),
        (("synthesize", "{in}", "{out}", "--agree", "0"), "--agree: "),
        (("synthesize", "{in}", "{out}", "--model", "/no/such"), "/no/such: no such model folder"),
    ],
)
def test_wrong_input_is_one_line_and_exits_2(
    reason, source: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    places = {"{in}": str(source), "{out}": str(tmp_path / "out.jsonl")}
    ran = reason("data", *(places.get(word, word) for word in words))
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert ran.err.startswith("reason: ") and ran.err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_server_that_is_not_there_exits_1(reason, source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out.jsonl")
    ran = reason("data", "augment", str(source), out, "--url", "http://127.0.0.1:1")
    assert ran.code == 1 and "127.0.0.1:1" in ran.err
