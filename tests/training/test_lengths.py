"""How long rows are, told before the first step: what is cut, and what could never be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Preference, Row, Text
from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Encoder
from reason_engine.training.common.models import load_tokenizer
from reason_engine.training.run import run
from reason_engine.training.supervised.sft import SftConfig
from reason_engine.training.text.lengths import measure, told_lengths
from reason_engine.types import Message
from tests.models import write_model
from tests.training.test_methods import SPOKEN, lines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


def spoken(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def test_lengths_and_what_is_cut_are_told(model: Path) -> None:
    first, second = spoken("a", "b" * 5), spoken("a", "b" * 60)
    rows: list[Row] = [first, second, Text("c" * 500), Preference((Message("user", "a"),), "b", "c" * 70)]
    tokenizer = load_tokenizer(model)
    found = measure(rows, Encoder(tokenizer, 40))
    items = Encoder(tokenizer, 999).encode([first, second])
    assert [one.whole for one in found[:2]] == [len(item.ids) for item in items] and len(found) == 4
    assert [one.answer for one in found[:2]] == [item.weights.index(1.0) for item in items]
    lengths, cut = told_lengths(rows, Encoder(tokenizer, 40), 0)
    assert f"longest {max(one.whole for one in found)} tokens; max_length 40" in lengths
    assert "truncation: 2 rows (50.0 %)" in cut
    assert len(told_lengths(rows, Encoder(tokenizer, 999), 0)) == 1


def test_an_answer_behind_the_limit_ends_the_run_before_it_begins(model: Path, tmp_path: Path) -> None:
    rows = [*SPOKEN, {"prompt": "x" * 300, "completion": "y"}]
    config: dict[str, Any] = {"out": tmp_path / "o", "model": model, "data": lines(tmp_path / "d.jsonl", rows)}
    made = SftConfig.model_validate({**config, "tokens": 100, "max_length": 64, "threads": 1})
    with pytest.raises(SetupError, match="max_length: 1 of 9 rows have no answer within 64 tokens"):
        run("sft", made)
    assert not (tmp_path / "o").exists()


def test_a_problem_with_its_solution_is_read_as_a_conversation(tmp_path: Path) -> None:
    rows = [
        {"question": "Two and two?", "answer": "It is 2+2=<<2+2=4>>4.\n#### 4"},
        {"question": "Three?", "answer": "3"},
    ]
    first, second = read_rows(lines(tmp_path / "g.jsonl", rows), Conversation, Text)
    assert first == spoken("Two and two?", "It is 2+2=4.\n#### 4") and second == spoken("Three?", "3")
