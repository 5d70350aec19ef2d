"""What is wrong with the form of a step: nothing at all, a repetition, an open bracket or equation, an empty answer.

Brackets and unfinished equations are looked at in plain lines only: where there is LaTeX or code, a formula may go on
in the next step, and an interval opens with another bracket than it closes with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from reason_engine.verifiers.process_rules.notation import LONGEST

REPEATS = 4
"""A phrase that stands so often in a row is a model in a loop."""


def fault_of_form(text: str, earlier: Collection[str], marker: str | None = None) -> str:
    """What is wrong with the form of a step; empty where nothing is. `earlier`: the steps before it."""
    line = " ".join(text.split())
    plain = "" if _TYPESET.search(text) else text
    last = text.strip().rpartition("\n")[2].strip()
    faults: dict[str, Callable[[], object]] = {
        "empty": lambda: not line,
        "overlong": lambda: any(len(one) > 2 * LONGEST for one in text.splitlines()),
        "said before": lambda: line in earlier and any(sign.isalnum() for sign in line),
        "a bracket is open": lambda: not _balanced(plain),
        "an equation that does not parse": lambda: any(_DANGLING.search(one) for one in plain.splitlines()),
        "no answer after its mark": lambda: marker and last == marker.strip(),
        "a phrase again and again": lambda: any(re.search("[^\\W\\d]", found[1]) for found in _LOOP.finditer(line)),
    }
    return next((fault for fault, stands in faults.items() if stands()), "")


def _balanced(text: str) -> bool:
    """Whether every bracket closes its own kind; a lone closing one after a number or letter is a list's mark."""
    opened: list[str] = []
    for sign in re.sub(r"(?m)^\W*\w{1,3}\)|[:;]-?[()]", "", text):
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return False
    return not opened


_PAIRS = {")": "(", "]": "[", "}": "{"}
_TYPESET = re.compile(r"\\[A-Za-z()\[\]{}]|\$|```|[{}]|[\[(][^\[\]()\n]{0,40},[^\[\]()\n]{0,40}[\])]")
_DANGLING = re.compile(r"\d\s*[-+*/]\s*=|=\s*$|=\s*[+*/]\s*\d|\d\s*[+*/]\s*$")
_LOOP = re.compile(rf"(\b\w.{{2,40}}?)\1{{{REPEATS - 1},}}")
