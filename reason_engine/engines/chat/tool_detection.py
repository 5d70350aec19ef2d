"""Which form of tool calls a model writes.

1. the operator's `--tool-parser`; 2. rules over the texts that stand in its template, most particular first; 3. the
tokenizer's `response_template`; 4. the marks of Hermes, which most models without a form of their own were taught.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reason_engine.engines.chat.call_readers import read_json
from reason_engine.engines.chat.tool_formats import BY_NAME, HERMES, ToolFormat
from reason_engine.errors import SetupError

FROM_TOKENIZER = ("hf", "response_template")
RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>",)),
    ("gemma4", ("<|tool_call>call:",)),
    ("functiongemma", ("<start_function_call>",)),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("deepseek_v4", ("｜DSML｜tool_calls>",)),
    ("deepseek_v32", ("｜DSML｜function_calls>",)),
    ("deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek_v31", ("<｜tool▁calls▁begin｜>",)),
    ("deepseek_v41", ("<｜DSML｜ calls>",)),
    ("dots", ("<dots_function_call>",)),
    ("muse_glimmer", ("<atem:function_calls>",)),
    ("cohere", ("<|START_ACTION|>",)),
    ("minimax_m2", ("<minimax:tool_call>",)),
    ("seed_oss", ("<seed:tool_call>",)),
    ("longcat", ("<longcat_tool_call>",)),
    ("lfm2", ("<|tool_call_start|>",)),
    ("internlm", ("<|action_start|>",)),
    ("nemotron", ("<TOOLCALL>",)),
    ("granite", ("<|tool_call|>",)),
    ("granite-20b-fc", ("<function_call>",)),
    ("hy_v3", ("<tool_calls>", "<tool_sep>")),
    ("glm45", ("<tool_call>", "<arg_key>")),
    ("qwen3_coder", ("<tool_call>", "<function=")),
    ("hermes", ("<tool_call>",)),
    ("jamba", ("<tool_calls>",)),
    ("olmo3", ("<function_calls>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("phi4_mini_json", ("functools",)),
    ("gemma", ("```tool_code",)),
    ("llama3_json", ('"parameters"', "ipython")),
    ("llama3_json", ("<|python_tag|>",)),
    ("llama3_json", ('{"name": function name, "parameters"',)),
    ("pythonic", ("<|python_start|>",)),
    ("pythonic", ("(params_name1=", "func_name")),
)
"""A format and the texts that all stand in its templates, most particular first."""


@dataclass(frozen=True, slots=True)
class FoundFormat:
    """A format, and the rule that found it."""

    format: ToolFormat
    rule: str


def find_format(source: str, response: Mapping[str, Any], named: str | None) -> FoundFormat:
    """By the operator's name, else by the first rule that holds. Raises SetupError for an unknown name."""
    if named in FROM_TOKENIZER:
        if made := _from_response(response):
            return FoundFormat(made, "named")
        raise SetupError(f"--tool-parser {named}: the tokenizer has no response_template with tool_calls as JSON")
    if named is not None:
        return FoundFormat(named_format(named), "named")
    for name, texts in RULES:
        if all(text in source for text in texts):
            return FoundFormat(BY_NAME[name], f"{' and '.join(texts)} in the template")
    if made := _from_response(response):
        return FoundFormat(made, "the tokenizer's response_template")
    return FoundFormat(HERMES, "nothing in the template; assumed")


def named_format(name: str) -> ToolFormat:
    """The format of that name. Raises SetupError with the known names."""
    if name not in BY_NAME:
        known = ", ".join(sorted({*BY_NAME, *FROM_TOKENIZER}))
        raise SetupError(f"--tool-parser {name}: no such parser; one of: {known}")
    return BY_NAME[name]


def _from_response(response: Mapping[str, Any]) -> ToolFormat | None:
    """The field `tool_calls` of a response_template, where its marks are texts and its content is JSON."""
    field: Any = (response.get("fields") or {}).get("tool_calls") or {}
    start, end = field.get("open"), field.get("close") or ""
    if field.get("content") != "json" or not isinstance(start, str) or not isinstance(end, str):
        return None
    return ToolFormat("response-template", start.strip(), end.strip(), read_json)
