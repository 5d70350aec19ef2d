"""Chat format: rendering, parsing, tokenising, and every way a checkpoint folder can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reason_engine.engines.chat import ChatFormat
from reason_engine.errors import ModelLoadError, RequestError
from reason_engine.types import Message, ToolCall
from tests.models import write_tokenizer

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


def chat(folder: Path, template: str) -> ChatFormat:
    write_tokenizer(folder, template)
    return ChatFormat.load(folder)


def test_renders_turns_generation_mark_and_prefill(folder: Path) -> None:
    made = ChatFormat.load(folder).render_chat([Message("user", "hi"), Message("assistant", "yo")], prefill="So")
    assert made == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>assistant\nSo"


@pytest.mark.parametrize("text", ["plain", "naïve — 数学 😀", "<|im_start|>user\nx<|im_end|>", ""])
def test_tokens_round_trip(folder: Path, text: str) -> None:
    made = ChatFormat.load(folder)
    assert made.detokenize(made.tokenize(text)) == text


def test_bos_is_put_first_once(folder: Path) -> None:
    from tokenizers import Tokenizer, processors

    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    bos = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    tokenizer.save(path)
    made = ChatFormat.load(folder)
    assert made.tokenize("a")[0] == bos
    assert made.tokenize("<|endoftext|>a") == made.tokenize("a")
    assert bos not in made.tokenize_bare("a")


def test_thinking_is_split_off(folder: Path) -> None:
    made = chat(folder, THINKING)
    assert made.thinks
    opened = made.render_chat([Message("user", "q")])
    closed = made.render_chat([Message("user", "q")], think=False)
    parsed = made.parse("because\n</think>\n\n42", prompt=opened)
    assert (parsed.reasoning, parsed.content) == ("because", "42")
    assert made.parse("unfinished", prompt=opened).reasoning == "unfinished"
    assert made.parse("unfinished", prompt=opened).content == ""
    assert made.parse("42", prompt=closed) == made.parse("42")
    assert made.parse("<think>a</think>b").reasoning == "a"


def test_a_think_mark_in_the_users_turn_opens_nothing(folder: Path) -> None:
    made = ChatFormat.load(folder)
    assert not made.thinks
    assert made.parse("42", prompt=made.render_chat([Message("user", "what is <think>?")])).content == "42"


def test_a_template_that_closes_thinking_by_default_does_not_think(folder: Path) -> None:
    assert not chat(folder, "{{ messages[0].content }}<think>\n\n</think>\n\n").thinks


def test_tool_calls_are_parsed_and_numbered_apart(folder: Path) -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {"x": {"y": 1}}}\n</tool_call>'
    parsed = ChatFormat.load(folder).parse(f"I ask. {call}\n{call}")
    assert parsed.content == "I ask."
    assert [c.name for c in parsed.tool_calls] == ["f", "f"]
    assert json.loads(parsed.tool_calls[0].arguments) == {"x": {"y": 1}}
    assert len({c.id for c in parsed.tool_calls}) == 2


@pytest.mark.parametrize("bad", ["<tool_call>{oops}</tool_call>", '<tool_call>{"arguments": {}}</tool_call>'])
def test_a_malformed_tool_call_stays_text(folder: Path, bad: str) -> None:
    parsed = ChatFormat.load(folder).parse(bad)
    assert (parsed.content, parsed.tool_calls) == (bad, ())


def test_templates_get_tools_arguments_as_objects_and_html_unescaped(folder: Path) -> None:
    made = chat(folder, "{{ tools | tojson }}{{ messages[0].tool_calls[0].function.arguments.x }}")
    turn = Message("assistant", tool_calls=(ToolCall("1", "f", '{"x": 5}'),))
    assert made.render_chat([turn], tools=[{"a": "<b>"}]) == '[{"a": "<b>"}]5'


def test_developer_becomes_system_where_unknown(folder: Path) -> None:
    assert "<|im_start|>system" in ChatFormat.load(folder).render_chat([Message("developer", "x")])


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "{{ messages[5].content.x }}", "{{ 1 / 0 }}"])
def test_a_refusing_template_is_a_request_error(folder: Path, template: str) -> None:
    with pytest.raises(RequestError) as caught:
        chat(folder, template).render_chat([Message("user", "x")])
    assert caught.value.param == "messages"


def test_the_template_is_sandboxed(folder: Path) -> None:
    with pytest.raises(RequestError):
        chat(folder, "{{ ''.__class__.__mro__[1].__subclasses__() }}").render_chat([Message("user", "x")])


def test_no_template_gives_plain_turns(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert ChatFormat.load(folder).render_chat([Message("user", "x")]) == "User: x\nAssistant:"


def test_eos_ids_come_from_every_file(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert ChatFormat.load(folder).eos_ids == {3, 4, 258}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", None),
        ("tokenizer_config.json", "["),
        ("chat_template.jinja", "{% if %}"),
    ],
)
def test_bad_files_are_named(folder: Path, name: str, content: str | None) -> None:
    path = folder / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelLoadError, match=name if "jinja" not in name else "template") as caught:
        ChatFormat.load(folder)
    assert "\n" not in str(caught.value)
