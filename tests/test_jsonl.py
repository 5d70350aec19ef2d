"""JSON Lines: what is appended is read again, whatever a kill left behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.jsonl import JsonLines


@pytest.fixture
def file(tmp_path: Path) -> JsonLines:
    return JsonLines(tmp_path / "rows.jsonl")


def test_rows_come_back_with_their_places(file: JsonLines) -> None:
    assert file.append({"a": "ü\u2028"}, {"b": 1}) == 0
    place = file.append({"c": "\ud800"})
    assert [(line.number, line.value()) for line in file.lines()] == [
        (1, {"a": "ü\u2028"}),
        (2, {"b": 1}),
        (3, {"c": "\ud800"}),
    ]
    assert [line.start for line in file.lines()][2] == place
    assert file.value_at(place) == {"c": "\ud800"}
    assert "ü" in file.path.read_bytes()[:20].decode()


def test_escaped_rows_are_ascii(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "rows.jsonl", escape=True)
    file.append({"a": "ü"})
    assert file.path.read_bytes() == b'{"a": "\\u00fc"}\n'


def test_a_torn_last_line_is_skipped_cut_or_read(file: JsonLines) -> None:
    file.append({"a": 1})
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"b": 2}')
    assert [line.value() for line in file.lines()] == [{"a": 1}]
    assert [line.value() for line in file.lines("read")] == [{"a": 1}, {"b": 2}]
    assert [line.value() for line in file.lines("cut")] == [{"a": 1}]
    assert file.path.read_bytes() == whole


def test_rewriting_is_whole_or_not_at_all(file: JsonLines) -> None:
    file.append({"a": 1})
    with pytest.raises(TypeError):
        file.rewrite([{"b": 2}, {"c": object()}])
    assert [line.value() for line in file.lines()] == [{"a": 1}]
    file.rewrite([{"b": 2}])
    assert [line.value() for line in file.lines()] == [{"b": 2}]
    assert [path.name for path in file.path.parent.iterdir()] == ["rows.jsonl"]
