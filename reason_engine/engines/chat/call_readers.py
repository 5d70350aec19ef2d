"""Readers of tool calls, one for each way of writing them.

A reader takes the text after the mark that begins calls and returns the calls in it with the number of characters they
take, or None where they are not well formed; then the text stays what it is. Here those that write arguments as JSON;
`tagged_calls` and `pythonic` have the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

Call = tuple[str, str]
"""Name, and arguments as JSON text."""
Read = tuple[list[Call], int]
Reader = Callable[[str], Read | None]


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
            calls.append((found[1], dumped(arguments)))
            ended = suffix.match(text, end)
            at = ended.end() if ended else end
        return (calls, at) if calls else None

    return read


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
            return [(found[1], dumped(json.loads("".join(spelled[: len(parts)]))))], len(body)
        except (ValueError, RecursionError):
            return None

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
    return name, arguments if isinstance(arguments, str) else dumped(arguments)


def dumped(value: Any) -> str:
    """Arguments as JSON text."""
    return json.dumps(value, ensure_ascii=False)


_DECODER = json.JSONDecoder()
