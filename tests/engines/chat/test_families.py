"""Every family: what is found in its template, how it is asked, and how what it writes is split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.text import Vocabulary
from reason_engine.types import Message, ModelInfo
from tests.engines.chat.families import CALL, FAMILIES, WEATHER, Family
from tests.models import write_tokenizer

ASKED = [Message("user", "How warm is it? Say <think> or </think>.")]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture
def made(family: Family, tmp_path: Path) -> ChatFormat:
    return load(tmp_path, family)


def load(folder: Path, family: Family) -> ChatFormat:
    from tokenizers import Tokenizer

    write_tokenizer(folder, family.template)
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_special_tokens(list(family.specials))
    tokenizer.save(path)
    return ChatFormat.load(folder)


def info(made: ChatFormat) -> ModelInfo:
    return made.info("m", "", 100, "")


def test_it_is_found(family: Family, made: ChatFormat) -> None:
    thoughts, tools, *_ = made.found
    assert thoughts.startswith(f"thoughts: {family.thought or 'none'}")
    assert family.switch is None or thoughts.endswith(f"switched by {family.switch}")
    assert tools.startswith(f"tool calls: {family.tools} ")
    assert (made.thinks, info(made).think_on_request) == (family.thinks, family.thought is not None)


def test_thinking_is_turned_off(family: Family, made: ChatFormat) -> None:
    default, off = made.render_chat(ASKED), made.render_chat(ASKED, think=False)
    assert default.endswith(family.head)
    assert off.endswith(family.off)
    assert made.opened(default) is bool(family.head and not any(end in family.head for end in ("/", "<channel|>")))
    assert not made.opened(off)
    assert made.render_chat(ASKED, think=False, prefill="yes") == off + "yes"


def test_a_probability_is_read_where_the_answer_begins(family: Family, made: ChatFormat) -> None:
    """What follows the prompt is content, whatever the model does by default."""
    off = made.render_chat(ASKED, think=False)
    parsed = made.parse("yes", prompt=off)
    assert (parsed.reasoning, parsed.content) == (None, "yes")


def test_a_thought_and_its_answer(family: Family, made: ChatFormat) -> None:
    parsed = made.parse(family.wrote, prompt=made.render_chat(ASKED))
    assert (parsed.reasoning, parsed.content) == ("so" if family.thinks else None, "42")
    assert parsed.tool_calls == ()


def test_an_open_thought_is_closed(family: Family, made: ChatFormat) -> None:
    """As a forced answer does it."""
    if not family.thinks:
        return
    prompt = made.render_chat(ASKED)
    begun = "so" if made.opened(prompt) else f"{info(made).think_start}so"
    assert made.parse(begun, prompt=prompt).content == ""
    parsed = made.parse(f"{begun}{info(made).think_close}42", prompt=prompt)
    assert parsed.content == "42"
    assert parsed.reasoning is not None
    assert parsed.reasoning.startswith("so")
    assert "the answer" in parsed.reasoning
    assert not made.opened(prompt + begun + info(made).think_exit)


def test_thinking_on_request(family: Family, made: ChatFormat) -> None:
    if family.thought is None:
        return
    prompt, marks = made.render_chat(ASKED, think=True), info(made)
    begun = "" if made.opened(prompt) else marks.think_start
    parsed = made.parse(f"{begun}so{marks.think_exit}42", prompt=prompt)
    assert (parsed.reasoning, parsed.content) == ("so", "42")


def test_a_tool_call(family: Family, made: ChatFormat) -> None:
    prompt = made.render_chat(ASKED, tools=[WEATHER], think=False)
    parsed = made.parse(family.call, prompt=prompt)
    assert [call.name for call in parsed.tool_calls] == ["weather"]
    assert json.loads(parsed.tool_calls[0].arguments) == CALL
    assert parsed.content == ""


def test_a_forced_tool_call(family: Family, made: ChatFormat) -> None:
    """Its opening is given, and its JSON is held by grammar."""
    prompt = made.render_chat(ASKED, tools=[WEATHER], think=False)
    written = info(made).tool_opening + json.dumps({"name": "weather", "arguments": CALL})
    parsed = made.parse(written, prompt=prompt)
    assert [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls] == [("weather", CALL)]


def test_a_call_after_a_thought(family: Family, made: ChatFormat) -> None:
    if not family.thinks or family.thought == "gpt-oss":
        return
    prompt = made.render_chat(ASKED, tools=[WEATHER])
    begun = "so" if made.opened(prompt) else f"{info(made).think_start}so"
    parsed = made.parse(f"{begun}{info(made).think_exit}{family.call}", prompt=prompt)
    assert (parsed.reasoning, len(parsed.tool_calls)) == ("so", 1)


def test_marks_of_a_thought_in_an_answer_are_text(family: Family, made: ChatFormat) -> None:
    marks = info(made)
    answer = f"write {marks.think_end} there"
    if family.thought == "gpt-oss":
        return  # there the mark is one token that ends the message
    parsed = made.parse(answer, prompt=made.render_chat(ASKED, think=False))
    assert (parsed.reasoning, parsed.content) == (None, answer)
    if family.thinks:
        whole = f"{'' if made.opened(made.render_chat(ASKED)) else marks.think_start}so{marks.think_exit}{answer}"
        assert made.parse(whole, prompt=made.render_chat(ASKED)).content == answer


def test_marks_that_are_control_tokens_stay_in_the_text(family: Family, made: ChatFormat) -> None:
    """A text is split by them, so whoever detokenises must show them."""
    out = Vocabulary(made.tokenizer, made.shown).detokenizer()
    for text in (family.wrote, family.call):
        shown = "".join(map(out.feed, made.tokenize_bare(text))) + out.finish()
        assert shown == text
