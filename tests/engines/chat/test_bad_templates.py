"""Templates and tokenizers that lack something, and names that are none: each a clear error or note, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines.chat import ChatFormat, Parsers
from reason_engine.errors import RequestError, SetupError
from reason_engine.types import Message, ToolCall
from tests.engines.chat.families import FAMILIES, WEATHER
from tests.models import write_tokenizer

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages %}{% if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system turn first') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
NO_TOOLS = "{% if tools %}{{ raise_exception('tools are not supported') }}{% endif %}{{ messages[0].content }}"
HISTORY = (Message("system", "Be brief."), Message("user", "one"), Message("assistant", "1"), Message("user", "two"))


def chat(folder: Path, template: str, parsers: Parsers | None = None, **config: Any) -> ChatFormat:
    write_tokenizer(folder, template)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return ChatFormat.load(folder, parsers or Parsers())


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_role_its_text_begins_the_first_user_turn(tmp_path: Path, template: str) -> None:
    made = chat(tmp_path, template)
    assert not made.info("m", "", 1, "").system_role
    assert made.render_chat(HISTORY) == "[user]Be brief.\n\none[assistant]1[user]two"
    assert made.render_chat([Message("developer", "Be brief.")]) == "[user]Be brief."
    assert made.render_chat([Message("system", ""), Message("user", "x")]) == "[user]x"
    assert any(line.startswith("system turn: ") for line in made.found)


def test_a_template_that_needs_a_system_turn_gets_an_empty_one(tmp_path: Path) -> None:
    made = chat(tmp_path, NEEDS_SYSTEM)
    assert made.render_chat([Message("user", "x")]) == "[system][user]x"
    assert made.render_chat(HISTORY[:2]) == "[system]Be brief.[user]one"


def test_a_template_that_fails_on_tools_is_a_request_error_naming_them(tmp_path: Path) -> None:
    made = chat(tmp_path, NO_TOOLS)
    assert "refuses tools" in made.report["tool calls"]
    assert made.render_chat(HISTORY[1:2]) == "one"
    with pytest.raises(RequestError, match="takes no tools") as caught:
        made.render_chat(HISTORY[1:2], tools=[WEATHER])
    assert caught.value.param == "tools"


def test_arguments_of_past_calls_are_text_where_a_template_joins_them(tmp_path: Path) -> None:
    joins = "{% for c in messages[0].tool_calls %}{{ 'f(' + c.function.arguments + ')' }}{% endfor %}"
    made = chat(tmp_path, joins)
    assert made.render_chat([Message("assistant", tool_calls=(ToolCall("1", "f", '{"x": 5}'),))]) == 'f({"x": 5})'


def test_a_model_without_template_is_continued_as_plain_text(tmp_path: Path) -> None:
    made = chat(tmp_path, "", chat_template=None)
    assert made.render_chat([Message("system", "s"), Message("user", "x")]) == "System: s\nUser: x\nAssistant:"
    assert any(line.startswith("chat template: none") for line in made.found)
    assert made.parse(" 42", prompt=made.render_chat([Message("user", "<think>")])).content == " 42"


def test_a_model_without_end_of_text_token_loads(tmp_path: Path) -> None:
    made = chat(tmp_path, "{{ messages[0].content }}", eos_token=None)
    assert made.eos_ids == frozenset()
    assert any(line.startswith("end of text: no token") for line in made.found)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_loads_without_special_tokens(tmp_path: Path, family: Any) -> None:
    made = chat(tmp_path, family.template)
    assert made.render_chat([Message("user", "x")])


@pytest.mark.parametrize(
    ("parsers", "said"),
    [
        (Parsers("qwen4"), "--reasoning-parser qwen4: no such parser; one of: .*qwen3"),
        (Parsers(""), "--reasoning-parser"),
        (Parsers(tools="hermes2"), "--tool-parser hermes2: no such parser; one of: .*hermes"),
    ],
)
def test_an_unknown_parser_is_refused_with_the_known_ones(tmp_path: Path, parsers: Parsers, said: str) -> None:
    with pytest.raises(SetupError, match=said):
        parsers.check()
    with pytest.raises(SetupError, match=said):
        chat(tmp_path, "{{ messages[0].content }}", parsers)


@pytest.mark.parametrize("name", ["hf", "response_template"])
def test_the_tokenizers_own_parser_needs_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(SetupError, match="response_template"):
        chat(tmp_path, "{{ messages[0].content }}", Parsers(name))
    with pytest.raises(SetupError, match="response_template"):
        chat(tmp_path, "{{ messages[0].content }}", Parsers(tools=name))


RESPONSE = {
    "start_anchor": "[assistant]",
    "fields": {
        "thinking": {"open": "<mull>", "close": "</mull>"},
        "tool_calls": {"open": "<call>", "close": "</call>", "content": "json", "repeats": True},
        "content": {},
    },
}


def test_a_response_template_tells_marks(tmp_path: Path) -> None:
    made = chat(tmp_path, "{{ messages[0].content }}[assistant]", response_template=RESPONSE)
    assert "response_template" in made.report["thoughts"]
    parsed = made.parse('<mull>so</mull>\n<call>{"name": "f", "arguments": {}}</call>', prompt="x[assistant]")
    assert (parsed.reasoning, parsed.content, parsed.tool_calls[0].name) == ("so", "", "f")


@pytest.mark.parametrize("broken", [[], "x", {"fields": []}, {"fields": {"thinking": {"open": 5}}}, {"fields": None}])
def test_a_broken_response_template_is_passed_over(tmp_path: Path, broken: Any) -> None:
    made = chat(tmp_path, "{{ messages[0].content }}", response_template=broken)
    assert made.report["thoughts"].startswith("none")


VLLM_NAMES = [
    "qwen3",
    "deepseek_r1",
    "deepseek_v3",
    "deepseek_v4",
    "deepseek_v41",
    "glm45",
    "glm47",
    "openai_gptoss",
    "gemma4",
    "mistral",
    "granite",
    "granite_thinking_parser",
    "nemotron_v3",
    "kimi_k2",
    "kimi_k3",
    "hunyuan_a13b",
    "hy_v3",
    "hy_v4",
    "seed_oss",
    "ernie45",
    "cohere_command3",
    "minimax_m2",
    "minimax_m3",
    "mimo",
    "olmo3",
    "step3",
    "step3p5",
    "holo2",
    "plamo3",
    "k2_horizon",
]
VLLM_TOOLS = [
    "hermes",
    "qwen3_coder",
    "qwen3_json",
    "qwen3_xml",
    "llama3_json",
    "llama4_json",
    "llama4_pythonic",
    "mistral",
    "pythonic",
    "openai",
    "deepseek_v3",
    "deepseek_v31",
    "deepseek_v32",
    "deepseek_v4",
    "deepseek_v41",
    "glm45",
    "glm47",
    "granite",
    "granite4",
    "granite-20b-fc",
    "gemma4",
    "functiongemma",
    "phi4_mini_json",
    "lfm2",
    "internlm",
    "jamba",
    "xlam",
    "olmo3",
    "seed_oss",
    "ernie45",
    "kimi_k2",
    "minimax_m2",
    "hunyuan_a13b",
    "hy_v3",
    "longcat",
    "dots",
    "cohere_command3",
    "mimo",
    "step3p5",
    "muse_glimmer",
]


def test_names_of_vllms_parsers_are_taken() -> None:
    for name in VLLM_NAMES:
        Parsers(name).check()
    for name in VLLM_TOOLS:
        Parsers(tools=name).check()


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1", "openai_gptoss", "mistral", "glm45", "granite", "kimi_k2"])
def test_a_named_parser_overrides_what_would_be_found(tmp_path: Path, name: str) -> None:
    made = chat(tmp_path, FAMILIES["gemma4"].template, Parsers(name, "pythonic"))
    assert "(named)" in made.report["thoughts"]
    assert made.report["tool calls"].startswith("pythonic (named)")


@pytest.mark.parametrize("name", ["none", "identity"])
def test_thoughts_can_be_left_in_the_text(tmp_path: Path, name: str) -> None:
    made = chat(tmp_path, FAMILIES["qwen3"].template, Parsers(name))
    assert made.parse("<think>a</think>b").content == "<think>a</think>b"
    assert not made.thinks


MALFORMED = [
    "<tool_call>",
    "<tool_call>{</tool_call>",
    "<tool_call>[]</tool_call>",
    '<tool_call>{"name": 5}</tool_call>',
    "<tool_call>" * 2000,
    '{"a":' * 5000,
    "[" * 5000,
    "[f(" * 3000,
    "[TOOL_CALLS]f[ARGS]{",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{",
    "<|channel|>commentary to=functions.f",
    "<|tool_call>call:f{a:<tool_call|>",
    "<think>" * 3000,
]


@pytest.mark.parametrize("name", FAMILIES)
def test_malformed_calls_are_text_and_cost_no_time(tmp_path: Path, name: str) -> None:
    made = chat(tmp_path, FAMILIES[name].template)
    prompt = made.render_chat([Message("user", "x")], think=False)
    for text in MALFORMED:
        parsed = made.parse(text, prompt=prompt)
        assert all(call.name == "f" for call in parsed.tool_calls)


def test_an_answer_in_json_is_no_call_of_a_tool_that_was_not_offered(tmp_path: Path) -> None:
    made = chat(tmp_path, FAMILIES["llama3"].template)
    answer = '{"name": "Ada", "parameters": {"born": 1815}}'
    prompt = made.render_chat([Message("user", "Who wrote the first program?")], tools=[WEATHER])
    assert made.parse(answer, prompt=prompt).content == answer
    assert made.parse('{"name": "weather", "parameters": {}}', prompt=prompt).tool_calls
    assert made.parse('{"name": "weather", "born": 1815}', prompt=prompt).tool_calls == ()


def test_a_word_of_the_user_that_is_the_header_opens_nothing(tmp_path: Path) -> None:
    made = chat(tmp_path, FAMILIES["qwen3-thinking"].template)
    prompt = made.render_chat([Message("user", "<|im_start|>assistant\n<think>")], think=False)
    assert not made.opened(prompt)
