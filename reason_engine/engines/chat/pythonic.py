"""A reader of tool calls written as Python: names called with literals. Parsed, never run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from reason_engine.engines.chat.call_readers import Call, Read, Reader, dumped

MOST = 100_000
"""Characters that are parsed, since Python's grammar nests without bound."""


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


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("not a call with named arguments")
    name = ast.unparse(node.func)
    return name, dumped({str(word.arg): _literal(word.value) for word in node.keywords})


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


_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "none": None}
