r"""What a written sum comes to: `12 \times 0.8`, `(3 + 4) * 2`. Exact, of plain arithmetic alone. Part of `answers`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MOST = 120
"""Characters of the longest sum that is worked out."""


def sum_value(text: str) -> Fraction | None:
    """The value of a text that is digits, brackets and signs alone, with a product or a sum in it; else None."""
    for written, sign in _SIGNS:
        text = text.replace(written, sign)
    body = text.strip(" .$")
    if len(body) > MOST or not _SUM.fullmatch(body) or not _JOINED.search(body):
        return None
    try:
        return _value(ast.parse(body, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return Fraction(str(node.value))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            return _OPERATIONS[type(op)](_value(left), _value(right))
        case _:
            raise ValueError("not a sum")


_OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\u00d7", "*"), ("\u00f7", "/"), ("\u2212", "-"))
_SUM = re.compile(r"[\d.]+(?:[\d\s.+*/()-]*[\d.)])|\([\d\s.+*/()-]*\)[\d\s.+*/()-]*")
_JOINED = re.compile(r"[\d)] ?[*+] ?[\d(]|[\d)] - [\d(]")
"""A lone slash is a fraction, and a dash between digits a range or a date."""
