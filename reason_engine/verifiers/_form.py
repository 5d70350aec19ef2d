"""The form of a step: what can be said against it without knowing what it means."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from reason_engine.verifiers._equations import LONGEST, Equation

REPEATS = 4
"""A phrase that stands so often in a row is a model in a loop."""


def well_formed(
    text: str, found: Sequence[Equation], said: Collection[str], marker: str | None = None
) -> str:
    """What is wrong with the form of a step; empty where nothing is. `said`: the steps before it."""
    line = " ".join(text.split())
    if not line:
        return "empty"
    if len(text) > 2 * LONGEST:
        return "overlong"
    if line in said:
        return "said before"
    if not _balanced(line):
        return "a bracket is open"
    if any(equation.holds is None for equation in found) or _DANGLING.search(line):
        return "an equation that does not parse"
    if marker is not None and line.startswith(marker) and not line[len(marker) :].strip():
        return "no answer after its mark"
    if _LOOP.search(line):
        return "a phrase again and again"
    return ""


def _balanced(line: str) -> bool:
    """Whether every bracket closes its own kind; a lone closing one after a number or letter is a list's mark."""
    opened: list[str] = []
    for sign in re.sub(r"^\s*\w{1,3}\)", "", line):
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return False
    return not opened


_PAIRS = {")": "(", "]": "[", "}": "{"}
_DANGLING = re.compile(r"\d\s*[-+*/]\s*=|=\s*$|=\s*[+*/]\s*\d|\d\s*[+*/]\s*$")
_LOOP = re.compile(rf"(\b\w.{{2,40}}?)\1{{{REPEATS - 1},}}")
