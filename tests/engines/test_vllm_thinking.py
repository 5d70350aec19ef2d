"""What vLLM is told of thoughts, where vLLM is not installed."""

from __future__ import annotations

from dataclasses import replace

from reason_engine.engines.vllm.thinking import reasoning_config
from reason_engine.types import ModelInfo

INFO = ModelInfo("m", "", 1, thinks=True, think_close="\n\nEnough.\n</think>\n\n")
MARKS = frozenset({"<think>", "</think>"})


def test_the_sentence_is_forced_where_the_mark_alone_is_known() -> None:
    told = reasoning_config(INFO, MARKS)
    assert told == {
        "reasoning_parser": "deepseek_r1",
        "reasoning_start_str": "<think>",
        "reasoning_end_str": "\n\nEnough.\n</think>",
    }


def test_else_the_mark_alone() -> None:
    muse = replace(INFO, think_start="<muse>", think_end="</muse>")
    assert reasoning_config(muse, frozenset({"<muse>", "</muse>"})) == {
        "reasoning_start_str": "<muse>",
        "reasoning_end_str": "</muse>",
    }


def test_nothing_where_there_is_no_thought_or_no_token_that_ends_it() -> None:
    assert reasoning_config(replace(INFO, thinks=False), MARKS) is None
    assert reasoning_config(replace(INFO, thinks=False, think_on_request=True), MARKS) is not None
    assert reasoning_config(INFO, frozenset({"<think>"})) is None
