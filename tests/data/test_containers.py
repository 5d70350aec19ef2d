"""Kinds of files: each is found and read, and what is broken in one is said."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reason_engine.data.formats.readers import open_source, read_rows
from reason_engine.data.formats.rows import Conversation, Text
from reason_engine.errors import SetupError
from tests.data.test_readers import A, Q, Raw, U, V, lines


def write_csv(path: Path, rows: Sequence[Raw]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        cells = [
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows
        ]
        writer.writerows(cells)


CONTAINERS: dict[str, tuple[str, Callable[[Path, Sequence[Raw]], object], list[int]]] = {
    "a.json": ("JSON list", lambda path, rows: path.write_text(json.dumps(rows, indent=1)), [2, 15]),
    "b.json": ("JSON lines", lines, [1, 2]),
    "c.jsonl.gz": (
        "JSON lines",
        lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
        [1, 2],
    ),
    "d.csv": ("CSV", write_csv, [2, 3]),
    "e.jsonl": (
        "JSON lines",
        lambda path, rows: path.write_text("\ufeff" + "\n".join(map(json.dumps, rows)), "utf-8"),
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_kind_of_file_is_found_and_read(tmp_path: Path, name: str) -> None:
    container, put, at = CONTAINERS[name]
    rows: list[Raw] = [{"messages": [U, V], "family": text} for text in ("one", "two")]
    put(tmp_path / name, rows)
    source = open_source(tmp_path / name)
    assert source.container == container
    records = list(source)
    assert [record.fault for record in records] == [None, None]
    assert [record.line for record in records] == at
    assert list(read_rows(tmp_path / name, Conversation))[1] == Conversation((Q, A), "two")


def test_a_long_json_list_is_read_across_windows(tmp_path: Path) -> None:
    rows = [{"text": "word " * 9_000 + str(number)} for number in range(9)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=0))
    found = list(open_source(tmp_path / "a.json"))
    assert [record.row for record in found] == [Text(row["text"]) for row in rows]
    assert [record.line for record in found] == list(range(2, 29, 3))


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ('[{"text": "a"},\n {"text": }]', 2, "nothing after it was read"),
        ('[{"text": "a"}\n {"text": "b"}]', 2, "a comma or the end of the list"),
        ('[{"text": "a"},\n {"text": "b"', 2, "is not JSON"),
        ('[{"text": "a"}\n', 2, "a comma or the end of the list"),
    ],
)
def test_a_broken_list_is_a_fault_where_it_breaks(tmp_path: Path, text: str, at: int, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    good, bad = open_source(tmp_path / "a.json")
    assert good.row == Text("a")
    assert bad.fault and bad.fault.line == at and said in bad.fault.message


def test_csv_faults(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('messages,family\n"[1",f\nx,f,more\n')
    first, second = open_source(tmp_path / "a.csv", "messages")
    assert first.fault and (first.fault.line, first.fault.field) == (2, "messages")
    assert second.fault and "more cells" in second.fault.message


def test_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n{"text": "b"}\n')
    assert [record.fault is None for record in open_source(tmp_path / "a.jsonl")] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"text\n", "holds no rows"),
        ("a.jsonl", b"{\n", r"a\.jsonl:1: is not JSON"),
        ("a.bin", b"\x00\x01", "neither JSON lines"),
        ("a.jsonl.gz", b"{}", "Not a gzipped file"),
        ("a.jsonl", b'{"a": 1}', "fits no format; its fields are 'a'; formats: preference, "),
        ("a.jsonl", b'{"prompt": "q", "chosen": "a"}', "preference would also need rejected"),
        ("a.jsonl", b'{"a": 1}\n' * 3, r"a\.jsonl:1: fits no format"),
    ],
)
def test_a_file_that_is_no_data_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SetupError, match=said):
        open_source(tmp_path / name)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.jsonl", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SetupError, match=said):
            open_source(path)
