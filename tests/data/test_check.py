"""`reason data check`: what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.data.filter.check import check, describe
from reason_engine.errors import SetupError
from tests.data.test_filter import lines, text


def test_check_counts_bad_rows_duplicates_and_lengths(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [*text("12", "1 2", "1  2", "123456"), {"text": 1}, "{"])
    (found,) = check([path], shown=1)
    assert (found.rows, found.bad, found.duplicates) == (6, 2, 1)
    assert [str(fault) for fault in found.faults] == [f"{path}:5: `text` must be text, not a number"]
    assert found.fields_at_fault == {"text": 1, "(row)": 1}
    assert (found.characters["min"], found.characters["max"], found.characters["sum"]) == (2, 6, 15)
    assert found.tokens["max"] == 6
    told = describe(found)
    assert "rows 6, bad 2, duplicates 1" in told and "and 1 more bad rows" in told
    assert not check([path], tokenizer="none")[0].tokens


def test_check_counts_doubles_across_files(tmp_path: Path) -> None:
    one, two = (lines(tmp_path / name, text("a", "b")) for name in ("1.jsonl", "2.jsonl"))
    assert [found.duplicates for found in check([one, two], tokenizer="none")] == [0, 2]


@pytest.mark.parametrize(("name", "said"), [("none.json", "is no file"), ("bad.json", "not a tokenizer")])
def test_a_bad_tokenizer_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "bad.json").write_text("{}")
    path = lines(tmp_path / "a.jsonl", text("a"))
    with pytest.raises(SetupError, match=f"--tokenizer .*{said}"):
        check([path], tokenizer=str(tmp_path / name))
