"""Readers of tool calls written in tags: one for each argument, its text between them.

Values are read as JSON where they are such, else as text: tags quote nothing, and the types are the tool's to know.
"""

from __future__ import annotations

import json
import re
from typing import Any

from reason_engine.engines.chat.call_readers import Call, Read, dumped


def read_functions(text: str) -> Read | None:
    """`<function=NAME>` with `<parameter=KEY>` in it, several one after another."""
    return _elements(text, _FUNCTION, _PARAMETER)


def read_invocations(text: str) -> Read | None:
    """`<invoke name="NAME">` with `<parameter name="KEY">` in it, several one after another."""
    return _elements(text, _INVOKE, _NAMED_PARAMETER)


def read_pairs(text: str) -> Read | None:
    """A name, then `<arg_key>` and `<arg_value>` in turn, up to the end of the call."""
    name = _PAIRED_NAME.match(text)
    if not name:
        return None
    values: dict[str, Any] = {}
    at = name.end()
    while pair := _PAIR.match(text, at):
        values[pair[1].strip()] = _value(pair[2])
        at = pair.end()
    ended = not text[at:].strip() or text[at:].lstrip().startswith("</tool_call>")
    return ([(name[1], dumped(values))], at) if ended else None


def read_wrapped_pairs(text: str) -> Read | None:
    """Such calls, each between `<tool_call>` and `</tool_call>`."""
    calls: list[Call] = []
    at = 0
    while begun := _BEGIN.match(text, at):
        read = read_pairs(text[begun.end() :])
        if read is None:
            break
        calls += read[0]
        at = begun.end() + read[1]
        ended = _END.match(text, at)
        at = ended.end() if ended else at
    return (calls, at) if calls else None


def _elements(text: str, element: re.Pattern[str], inner: re.Pattern[str]) -> Read | None:
    calls: list[Call] = []
    at = 0
    while found := element.match(text, at):
        values = {each[1]: _typed(each[2], each[3]) for each in inner.finditer(found[2])}
        calls.append((found[1], dumped(values)))
        at = found.end()
    return (calls, at) if calls else None


def _typed(attributes: str, text: str) -> Any:
    """A value, which an attribute may say is a string."""
    return text.strip("\n") if 'string="true"' in attributes else _value(text)


def _value(text: str) -> Any:
    bare = text.strip("\n")
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return bare


_FUNCTION = re.compile(r"\s*<function=([^>\s]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\s]+)()>(.*?)</parameter>", re.DOTALL)
_DSML = r"(?:｜DSML｜\s?|atem:)?"
_INVOKE = re.compile(rf"\s*<{_DSML}invoke name=[\"']?([\w.:-]+)[\"']?[^>]*>(.*?)</{_DSML}invoke>", re.DOTALL)
_NAMED_PARAMETER = re.compile(
    rf"<{_DSML}parameter name=[\"']?([\w.:-]+)[\"']?([^>]*)>(.*?)</{_DSML}parameter>", re.DOTALL
)
_PAIRED_NAME = re.compile(r"\s*([\w.:-]+)\s*(?:<tool_sep>)?")
_BEGIN, _END = re.compile(r"\s*<tool_call>"), re.compile(r"\s*</tool_call>")
_PAIR = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
