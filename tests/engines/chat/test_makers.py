"""The makers' own templates, as far as a package of the development environment ships them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from reason_engine.engines.chat import ChatFormat
from reason_engine.types import Message, ToolCall
from tests.engines.chat.families import CALL, WEATHER
from tests.models import write_tokenizer

found = find_spec("trl")
SHIPPED = Path(next(iter(found.submodule_search_locations or [""]))) / "chat_templates" if found else Path()
ASKED = [Message("user", "Hi")]
EMPTY = "<think>\n\n</think>\n\n"
MAKERS: dict[str, tuple[str, str, bool, str]] = {
    "qwen3": ("qwen3", "hermes", True, EMPTY),
    "qwen3_instruct_2507": ("none", "hermes", False, "assistant\n"),
    "qwen3_5_think": ("qwen3", "qwen3_coder", True, EMPTY),
    "qwen3_5_nothink": ("qwen3", "qwen3_coder", False, EMPTY),
    "qwen2_5": ("none", "hermes", False, "assistant\n"),
    "deepseek_r1_distill": ("deepseek-r1", "deepseek_v3", True, EMPTY),
    "deepseekv3": ("deepseek-r1", "deepseek_v3", True, EMPTY),
    "gptoss": ("gpt-oss", "harmony", True, "<|channel|>final<|message|>"),
    "gemma4": ("gemma", "gemma4", False, "<|turn>model\n"),
    "gemma": ("none", "hermes", False, "<start_of_turn>model\n"),
    "glm4moe": ("glm", "glm45", True, "<think></think>"),
    "nemotron_3_nano": ("nemotron", "qwen3_coder", True, "<think></think>"),
    "lfm2_v2": ("none", "lfm2", False, "assistant\n"),
    "llama3_1": ("none", "llama3_json", False, "\n\n"),
    "phi3": ("none", "hermes", False, "<|assistant|>\n"),
}
"""Thoughts, tool calls, whether it thinks by default, and how a prompt ends where it shall not."""


def shipped(folder: Path, name: str) -> ChatFormat:
    path = SHIPPED / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"{name} is not shipped here")
    write_tokenizer(folder, path.read_text("utf-8"))
    return ChatFormat.load(folder)


@pytest.mark.parametrize("name", MAKERS)
def test_a_makers_template_is_known(tmp_path: Path, name: str) -> None:
    made, (thought, tools, thinks, off) = shipped(tmp_path, name), MAKERS[name]
    assert made.report["thoughts"].split(",")[0].split(" ")[0] == thought
    assert made.report["tool calls"].startswith(f"{tools} ")
    assert made.thinks is thinks
    assert made.render_chat(ASKED, think=False).endswith(off)


@pytest.mark.parametrize("name", [name for name, (_, tools, *_) in MAKERS.items() if name not in ("gemma", "phi3")])
def test_a_call_that_a_makers_template_writes_is_read(tmp_path: Path, name: str) -> None:
    """Not for one that leaves past calls out."""
    made = shipped(tmp_path, name)
    past = Message("assistant", tool_calls=(ToolCall("call_0", "weather", json.dumps(CALL)),))
    turns, begun = ([*ASKED, past], made.render_chat(ASKED, tools=[WEATHER], think=False))
    whole = made.render_chat(turns, tools=[WEATHER], closed=True)
    wrote = whole[len(made.render_chat(ASKED, tools=[WEATHER], closed=True)) :]
    if "Oslo" not in wrote:
        return
    for mark in ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"):
        wrote = wrote.replace(mark, "")  # what stands around a call that has no marks of its own
    (call,) = made.parse(wrote, prompt=begun).tool_calls
    assert (call.name, json.loads(call.arguments)) == ("weather", CALL)


def test_contents_are_written_in_parts_for_a_template_that_reads_them_so(tmp_path: Path) -> None:
    write_tokenizer(
        tmp_path, "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    made = ChatFormat.load(tmp_path)
    assert made.render_chat([Message("system", "Be brief."), *ASKED]) == "[system]Be brief.[user]Hi"
