"""Runs one function of a program on inputs and prints what comes out, in a spelling in which equal values are equal.

Its text stands before a call of `tell` in what the sandbox runs: it imports nothing of this package. `shown` writes
the outputs that a question states, too.
"""

from __future__ import annotations

import ast
import io
import itertools
import sys
import types
import zlib
from collections.abc import Iterable
from typing import Any, cast

MARK, END, BESIDE = "\n\x02", "\x03", "\x04"
"""Around what came out, since a program may print as well; before what a function that returns nothing did to its
arguments."""
DEEPEST, MOST_ITEMS, DIGITS, LONGEST = 20, 1000, 9, 1000


def tell(source: str, name: str) -> None:
    """The function of that name on each of the lists of arguments that standard input lists, each in a fresh run of
    the program."""
    inputs = ast.literal_eval(sys.stdin.read())
    sys.stdin = io.StringIO()
    for args in inputs:
        module = sys.modules["answer"] = types.ModuleType("answer")
        try:
            exec(compile(source, "<text>", "exec"), module.__dict__)
            value = module.__dict__[name](*args)
            found = shown(value) + (BESIDE + shown(args) if value is None else "")
            if len(found) > LONGEST:
                found = f"{found[:LONGEST]} {zlib.crc32(found.encode('utf-8', 'replace'))}"
        except BaseException as error:
            found = f"!{type(error).__name__}"
        print(MARK + found + END, flush=True)


def shown(value: Any, depth: int = 0) -> str:
    """A value as text: numbers that are equal alike, sets and keys in order, iterators as what they give."""
    kind = cast(Any, type(value))
    if depth > DEEPEST:
        return "..."
    if kind is float:
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.{DIGITS}g}"
    if value is None or kind in (bool, int, str, bytes, complex):
        return repr(value)
    if kind in (list, tuple):
        inner = ", ".join(shown(item, depth + 1) for item in value)
        return f"[{inner}]" if kind is list else f"({inner})"
    if kind in (set, frozenset):
        return "{" + ", ".join(sorted(shown(item, depth + 1) for item in value)) + "}"
    if isinstance(value, dict):
        known = cast("dict[Any, Any]", value)
        items = sorted(f"{shown(key, depth + 1)}: {shown(item, depth + 1)}" for key, item in known.items())
        return "{" + ", ".join(items) + "}"
    if hasattr(value, "__next__") or kind is range:
        given = list(itertools.islice(cast("Iterable[Any]", value), MOST_ITEMS))
        return f"{kind.__name__} {shown(given, depth + 1)}"
    return kind.__name__
