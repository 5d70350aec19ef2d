"""Readers of tool calls, one for each way of writing them.

A reader takes the text after the mark that begins calls and returns the calls in it with the number of characters they
take, or None where they are not well formed; then the text stays what it is. Values written without quotes are read as
JSON where they are such, else as text, since a format that quotes nothing leaves their types to the tool's schema.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

Call = tuple[str, str]
"""Name, and arguments as JSON text."""
Read = tuple[list[Call], int]
Reader = Callable[[str], Read | None]

MOST = 100_000
"""Characters of a call that is parsed by Python's own grammar, which nests without bound."""


def read_json(text: str, *, whole: bool = False) -> Read | None:
    """One object or a list of them, with `name` and `arguments` (or `parameters`). `whole`: both keys, and no other."""
    try:
        start = len(text) - len(text.lstrip())
        value, size = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    calls = [made for entry in entries if (made := _json_call(entry, whole))]
    return (calls, size) if calls and len(calls) == len(entries) else None


def read_objects(text: str) -> Read | None:
    """Objects with `;` or white space between, each with both keys and no other: calls without any mark."""
    calls: list[Call] = []
    at = 0
    while at < len(text):
        read = read_json(text[at:], whole=True)
        if read is None:
            return None
        calls += read[0]
        at += read[1]
        at += len(text[at:]) - len(text[at:].lstrip("; \n\t"))
    return (calls, at) if calls else None


def named_json(before: str, after: str) -> Reader:
    """Calls that are a name and its arguments as JSON. `before` has the name as its group, `after` ends a call."""
    prefix, suffix = re.compile(before), re.compile(after)

    def read(text: str) -> Read | None:
        calls: list[Call] = []
        at = 0
        while found := prefix.match(text, at):
            try:
                arguments, end = _DECODER.raw_decode(text, found.end())
            except (ValueError, RecursionError):
                break
            calls.append((found[1], _dumped(arguments)))
            ended = suffix.match(text, end)
            at = ended.end() if ended else end
        return (calls, at) if calls else None

    return read


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
    return ([(name[1], _dumped(values))], at) if ended else None


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


def read_quoted(quote: str, end: str) -> Reader:
    """`call:NAME{key:value}` with strings between `quote` marks and bare keys."""

    def read(text: str) -> Read | None:
        body, _, _ = text.partition(end)
        found = re.match(r"\s*call:([\w.-]+)(\{.*\})\s*\Z", body, re.DOTALL)
        if not found:
            return None
        parts = found[2].split(quote)
        keyed = [re.sub(r"([{,]\s*)([A-Za-z_][\w.-]*)\s*:", r'\1"\2":', part) for part in parts[::2]]
        spelled = [part for pair in zip(keyed, map(json.dumps, [*parts[1::2], ""]), strict=False) for part in pair]
        try:
            return [(found[1], _dumped(json.loads("".join(spelled[: len(parts)]))))], len(body)
        except (ValueError, RecursionError):
            return None

    return read


def pythonic(end: str = "") -> Reader:
    """`[name(key=value), …]`, or one call a line; arguments are literals."""

    def read(text: str) -> Read | None:
        body = text.partition(end)[0] if end else text
        if len(body) > MOST:
            return None
        listed = body.strip() if body.strip().startswith("[") else f"[{', '.join(body.strip().splitlines())}]"
        try:
            tree = ast.parse(listed, mode="eval").body
            made = [_python_call(node) for node in tree.elts] if isinstance(tree, ast.List) else []
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            return None
        return (made, len(body)) if made else None

    return read


def _json_call(entry: Any, whole: bool) -> Call | None:
    if not isinstance(entry, Mapping):
        return None
    found = cast("Mapping[str, Any]", entry)
    name = found.get("name", found.get("tool_name"))
    given = [key for key in ("arguments", "parameters") if key in found]
    if not isinstance(name, str) or (whole and (len(given) != 1 or len(found) != 2)):
        return None
    arguments: Any = found[given[0]] if given else {}
    if whole and not isinstance(arguments, Mapping):
        return None
    return name, arguments if isinstance(arguments, str) else _dumped(arguments)


def _elements(text: str, element: re.Pattern[str], inner: re.Pattern[str]) -> Read | None:
    calls: list[Call] = []
    at = 0
    while found := element.match(text, at):
        values = {each[1]: _typed(each[2], each[3]) for each in inner.finditer(found[2])}
        calls.append((found[1], _dumped(values)))
        at = found.end()
    return (calls, at) if calls else None


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("not a call with named arguments")
    name = ast.unparse(node.func)
    return name, _dumped({str(word.arg): _literal(word.value) for word in node.keywords})


def _literal(node: ast.expr) -> Any:
    """A literal, `true`, `false` and `null` among them."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_literal, node.values), strict=True))
    return ast.literal_eval(node)


def _typed(attributes: str, text: str) -> Any:
    """A value, which an attribute may say is a string."""
    return text.strip("\n") if 'string="true"' in attributes else _value(text)


def _value(text: str) -> Any:
    bare = text.strip("\n")
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return bare


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_DECODER = json.JSONDecoder()
_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "none": None}
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
