"""One reader: what it detects, what it gives, and the line and field of what it refuses."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reason_engine.data import Example
from reason_engine.data.formats.parse import FORMATS, Format, InvalidField
from reason_engine.data.formats.readers import open_source, read_rows
from reason_engine.data.formats.rows import (
    Conversation,
    Labelled,
    Preference,
    Reference,
    Row,
    Stepwise,
    Text,
    answer_text,
    prompt_text,
    question_of,
    to_json,
    with_question,
)
from reason_engine.data.mixture import write_examples
from reason_engine.errors import MissingExtra, SetupError
from reason_engine.types import Message, ToolCall

Raw = Mapping[str, Any]
Q, A = Message("user", "q"), Message("assistant", "a")
U = {"role": "user", "content": "q"}
V = {"role": "assistant", "content": "a"}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}

GOOD: dict[str, tuple[str, Raw, Row]] = {
    "messages": ("messages", {"messages": [U, V]}, Conversation((Q, A))),
    "messages, all fields": (
        "messages",
        {"messages": [U, V], "family": "f", "weight": 2, "skip": [[0, 1]], "tools": [{"type": "function"}]},
        Conversation((Q, A), "f", 2.0, ((0, 1),), ({"type": "function"},)),
    ),
    "messages with a tool": (
        "messages",
        {
            "messages": [
                {"role": "system", "content": ""},
                U,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "content": "3", "tool_call_id": "1"},
                {"role": "assistant", "content": "a", "reasoning_content": "r"},
            ]
        },
        Conversation(
            (
                Message("system"),
                Q,
                Message("assistant", tool_calls=(ToolCall("1", "add", '{"a": 1}'),)),
                Message("tool", "3", tool_call_id="1"),
                Message("assistant", "a", "r"),
            )
        ),
    ),
    "parts of text": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, V]},
        Conversation((Q, A)),
    ),
    "sharegpt": (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
        Conversation((Message("system", "s"), Q, A)),
    ),
    "alpaca": ("alpaca", {"instruction": "q", "input": "", "output": "a"}, Conversation((Q, A))),
    "alpaca, all fields": (
        "alpaca",
        {"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["q", "a"]]},
        Conversation((Message("system", "s"), Q, A, Message("user", "q\ni"), A)),
    ),
    "prompt and completion": ("prompt+completion", {"prompt": "q", "completion": "a"}, Conversation((Q, A))),
    "query and response": ("prompt+completion", {"query": "q", "response": "a"}, Conversation((Q, A))),
    "prompt and completion as messages": (
        "prompt+completion",
        {"prompt": [U], "completion": [V]},
        Conversation((Q, A)),
    ),
    "preference": ("preference", {"prompt": "q", "chosen": "a", "rejected": ""}, Preference((Q,), "a", "")),
    "preference without a prompt": (
        "preference",
        {"chosen": [U, V], "rejected": [U, {"role": "assistant", "content": "b"}]},
        Preference((Q,), "a", "b"),
    ),
    "preference with both": (
        "preference",
        {"prompt": [U], "chosen": [U, V], "rejected": [U, {"role": "assistant", "content": "b"}]},
        Preference((Q,), "a", "b"),
    ),
    "preference of sharegpt": (
        "preference",
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        Preference((Q,), "a", "b"),
    ),
    "preference of alpaca": (
        "preference",
        {"instruction": "q", "input": "i", "chosen": "a", "rejected": "b"},
        Preference((Message("user", "q\ni"),), "a", "b"),
    ),
    "labelled": ("labelled", {"prompt": "q", "completion": "a", "label": False}, Labelled((Q,), "a", False)),
    "stepwise": (
        "stepwise",
        {"prompt": "q", "completions": ["1", "2"], "labels": [True, 0.25]},
        Stepwise((Q,), ("1", "2"), (1.0, 0.25)),
    ),
    "answer": (
        "prompt+answer",
        {"problem": "q", "answer": 51.0, "level": 3},
        Reference((Q,), "51.0", None, {"level": 3}),
    ),
    "answer after ####": (
        "prompt+answer",
        {"question": "q", "answer": "1 + 1 = 2\n#### 2"},
        Reference((Q,), "2", "1 + 1 = 2\n#### 2"),
    ),
    "answer and solution": (
        "prompt+answer",
        {"prompt": "q", "answer": "2", "solution": "s"},
        Reference((Q,), "2", "s"),
    ),
    "text": ("text", {"text": "t"}, Text("t")),
}


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", GOOD)
def test_every_format_is_found_and_read(tmp_path: Path, name: str) -> None:
    format, raw, row = GOOD[name]
    source = open_source(lines(tmp_path / "a.jsonl", [raw, raw]))
    assert source.format.name == format
    assert source.statement.startswith(f"{tmp_path}/a.jsonl: JSON lines; format {format}, found by ")
    assert source.statement.endswith("2 of the first 2 rows have its fields")
    assert [(record.line, record.row) for record in source] == [(1, row), (2, row)]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    row = GOOD[name][2]
    source = open_source(lines(tmp_path / "a.jsonl", [to_json(row)]))
    assert [record.row for record in source] == [row]


@pytest.mark.parametrize("name", GOOD)
def test_a_question_can_be_exchanged(name: str) -> None:
    row = GOOD[name][2]
    other = with_question(row, "other")
    assert type(other) is type(row) and question_of(other) == "other" and other != row
    assert with_question(other, question_of(row)) == row
    if not isinstance(row, Text):
        assert "other" in prompt_text(other) and answer_text(other) == answer_text(row)


BAD: dict[str, tuple[Raw, str, str, str]] = {
    # a good row of the format, the bad one, field, words of the message
    key: (good, *rest)
    for key, (good, rest) in {
        "not json": ({"text": "t"}, ("{", "", "not JSON")),
        "a list": ({"text": "t"}, ("[1]", "", "no object")),
        "deep": ({"text": "t"}, ("[" * 100_000, "", "nested")),
        "other format": ({"text": "t"}, ({"prompt": "q"}, "text", "is missing (format text)")),
        "not text": ({"text": "t"}, ({"text": 3}, "text", "must be text, not a number")),
        "empty": ({"text": "t"}, ({"text": " "}, "text", "is empty")),
        "no messages": ({"messages": [U, V]}, ({"messages": []}, "messages", "at least one")),
        "no mapping": ({"messages": [U, V]}, ({"messages": [1]}, "messages[0]", "must be a message")),
        "role": (
            {"messages": [U, V]},
            ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role", "'bot' is no role"),
        ),
        "content": (
            {"messages": [U, V]},
            ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content", "must be text, not an object"),
        ),
        "image": (
            {"messages": [U, V]},
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
                "messages[0].content[0]",
                "only parts of text",
            ),
        ),
        "order": (
            {"messages": [U, V]},
            ({"messages": [U, U, V]}, "messages[1]", "cannot stand after a turn of the user"),
        ),
        "begins wrong": ({"messages": [U, V]}, ({"messages": [V]}, "messages[0]", "at the beginning")),
        "last": ({"messages": [U, V]}, ({"messages": [U, V, U]}, "messages[2]", "must be the assistant's")),
        "weight": ({"messages": [U, V]}, ({"messages": [U, V], "weight": "2"}, "weight", "must be a number")),
        "skip": ({"messages": [U, V]}, ({"messages": [U, V], "skip": [[0, 9]]}, "skip[0]", "outside the last message")),
        "from": (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            ({"conversations": [{"from": "me", "value": "q"}]}, "conversations[0].from", "'me' is no role"),
        ),
        "same": (
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            ({"prompt": "q", "chosen": "a", "rejected": "a "}, "rejected", "same as `chosen`"),
        ),
        "no shared prompt": (
            {"chosen": "a", "rejected": "b", "prompt": "q"},
            ({"chosen": [U, V], "rejected": [V, V]}, "rejected[0]", "at the beginning"),
        ),
        "label": (
            {"prompt": "q", "completion": "a", "label": True},
            ({"prompt": "q", "completion": "a", "label": 2}, "label", "true or false, not 2"),
        ),
        "labels out of range": (
            {"prompt": "q", "completions": ["1"], "labels": [1]},
            ({"prompt": "q", "completions": ["1"], "labels": [-1]}, "labels[0]", "from 0 to 1, not -1"),
        ),
        "labels not a number": (
            {"prompt": "q", "completions": ["1"], "labels": [1]},
            ('{"prompt": "q", "completions": ["1"], "labels": [NaN]}', "labels[0]", "from 0 to 1"),
        ),
        "half a pair": ({"text": "t"}, (r'{"text": "\ud83d"}', "", "half a surrogate pair")),
        "labels too large": (
            {"prompt": "q", "completions": ["1"], "labels": [1]},
            ({"prompt": "q", "completions": ["1"], "labels": [10**400]}, "labels[0]", "from 0 to 1"),
        ),
        "weight too large": (
            {"messages": [U, V]},
            ({"messages": [U, V], "weight": 10**400}, "weight", "from 0 to 1e6"),
        ),
        "answer no number": (
            {"prompt": "q", "answer": "a"},
            ('{"prompt": "q", "answer": NaN}', "answer", "text or a number"),
        ),
        "too few labels": (
            {"prompt": "q", "completions": ["1"], "labels": [1]},
            ({"prompt": "q", "completions": ["1", "2"], "labels": [1]}, "labels", "2 steps, 1"),
        ),
        "step": (
            {"prompt": "q", "completions": ["1"], "labels": [1]},
            ({"prompt": "q", "completions": [""], "labels": [1]}, "completions[0]", "not empty"),
        ),
        "answer": ({"prompt": "q", "answer": "a"}, ({"prompt": "q", "answer": [1]}, "answer", "text or a number")),
        "prompt": ({"prompt": "q", "answer": "a"}, ({"prompt": "", "answer": "a"}, "prompt", "is empty")),
        "prompt ends": (
            {"prompt": "q", "answer": "a"},
            ({"prompt": [U, V], "answer": "a"}, "prompt[1]", "must end with the user's turn"),
        ),
        "history": (
            {"instruction": "q", "output": "a"},
            ({"instruction": "q", "output": "a", "history": [["q"]]}, "history[0]", "[question, answer]"),
        ),
    }.items()
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_line_and_field(tmp_path: Path, name: str) -> None:
    good, bad, field, said = BAD[name]
    path = lines(tmp_path / "a.jsonl", [good, "", bad, good])
    records = list(open_source(path))
    assert [record.line for record in records] == [1, 3, 4]
    assert [record.fault is None for record in records] == [True, False, True]
    fault = records[1].fault
    assert fault and (fault.line, fault.field) == (3, field) and said in fault.message
    with pytest.raises(SetupError) as refused:
        list(read_rows(path, open_source(path).format.kind))
    assert str(refused.value) == str(fault)
    assert str(fault).startswith(f"{path}:3: ")


def test_the_format_can_be_told(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"prompt": "q", "completion": "a", "answer": "2"}])
    assert open_source(path).format.name == "prompt+completion"
    source = open_source(path, "prompt+answer")
    assert [type(record.row) for record in source] == [Reference]
    assert "as told" in source.statement
    with pytest.raises(SetupError, match="did you mean 'preference'"):
        open_source(path, "preferences")


def test_a_file_of_another_kind_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"text": "t"}])
    with pytest.raises(SetupError, match=r"format text does not fit; wanted: messages, sharegpt, alpaca"):
        read_rows(path, Conversation)


def test_pairs_serve_where_labelled_answers_are_wanted(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert list(read_rows(path, Labelled)) == [Labelled((Q,), "a", True), Labelled((Q,), "b", False)]
    assert list(read_rows(path, Preference, Labelled)) == [Preference((Q,), "a", "b")]


def test_files_for_the_present_trainer_are_messages(tmp_path: Path) -> None:
    example = Example("q", "answer", "f", 2.0, ((0, 2),), (("h", "i"),))
    write_examples(tmp_path / "a.jsonl", [example])
    (row,) = read_rows(tmp_path / "a.jsonl", Conversation)
    assert [turn.content for turn in row.messages] == ["h", "i", "q", "answer"]
    assert (row.family, row.weight, row.skip) == ("f", 2.0, ((0, 2),))


def test_parquet(tmp_path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
        with pytest.raises(MissingExtra, match=r"reason-engine\[train\]"):
            open_source(tmp_path / "a.parquet")
        return
    from pyarrow import Table  # pyright: ignore[reportMissingImports]
    from pyarrow.parquet import write_table  # pyright: ignore[reportMissingImports]

    write_table(Table.from_pylist([{"prompt": "q", "chosen": "a", "rejected": "b"}]), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet", Preference)) == [Preference((Q,), "a", "b")]
    (tmp_path / "b.parquet").write_bytes(b"PAR1....PAR1")
    with pytest.raises(SetupError, match="not a Parquet file"):
        open_source(tmp_path / "b.parquet")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from(["", "a", "user", "assistant", "system", "tool", "text", "true"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "from", "value", "content", "type", "text", "tool_calls", "function", "name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = sorted({key for known in FORMATS for group in known.keys for key in group})


@given(
    st.sampled_from(FORMATS),
    st.dictionaries(st.sampled_from([*KEYS, "system", "history", "input", "skip", "weight", "tools"]), JSON),
)
@settings(max_examples=150, deadline=None)
def test_no_row_is_so_odd_that_it_is_neither_read_nor_refused(format: Format, raw: dict[str, Any]) -> None:
    if format.missing(raw):
        return
    try:
        row = format.parse(raw)
    except InvalidField:
        return
    assert isinstance(row, format.kind)
    assert json.dumps(to_json(row))
    assert isinstance(prompt_text(row) + answer_text(row) + question_of(row), str)
