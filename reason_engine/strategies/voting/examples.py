"""The examples of a question on which programs can be compared, with the outputs that it states.

They stand as calls with literal arguments, after the prompt of an interpreter or in a sentence (`double(2) == 4`,
`double(2) should return 4`), as arguments and output (`for x = 2 the output should be 4`), or as input and output below
headings of these names.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reason_engine.strategies.voting.harness import shown

MOST = 8
"""Examples that are read from a question."""
LONGEST, CALLS = 500, 64
"""Characters of a call or of what follows it; calls that are looked at."""


@dataclass(frozen=True, slots=True)
class Example:
    """What goes in: the arguments of a call as a literal list, or with `whole` the standard input of the program.
    `output` is what comes out, as the harness shows it, or as it is printed; None where nobody says."""

    given: str
    output: str | None = None
    whole: bool = False


def examples(question: str, name: str | None) -> list[Example]:
    """Those of a question: calls of the function of that name with literal arguments, else pairs of its arguments and
    its output, else, where no function is named, of what a whole program reads and prints."""
    found: dict[str, Example] = {}
    for one in itertools.chain(_calls(question, name) if name else (), _pairs(question, name)):
        known = found.get(one.given)
        if known is None or known.output is None:
            found[one.given] = one
    return list(found.values())[:MOST]


def _calls(question: str, name: str) -> Iterator[Example]:
    for match in itertools.islice(re.finditer(rf"(?<![\w.]){re.escape(name)}\(", question), CALLS):
        start = match.start()
        if question[:start].rstrip(" ").endswith("def"):
            continue
        text = question[start : start + LONGEST].split("\n\n")[0]
        for end in (place + 1 for place, char in enumerate(text) if char == ")"):
            arguments = _arguments(text[:end])
            if arguments is None:
                continue
            asked = question.rfind(">>>", question.rfind("\n", 0, start) + 1, start) >= 0
            yield Example(repr(arguments), _stated(question[start + end : start + end + LONGEST], below=asked))
            break


def _pairs(question: str, name: str | None) -> Iterator[Example]:
    found = itertools.chain(_PRINTED.finditer(question), _FOR.finditer(question) if name else ())
    for match in itertools.islice(found, CALLS):
        given, output = match[1].strip(), match[2].strip()
        if not name:
            yield Example(given + "\n", output, whole=True)
        elif arguments := _arguments(f"f({_NAMED.sub(',', given).lstrip(', ')})"):
            yield Example(repr(arguments), _literal(output))


def _arguments(call: str) -> list[Any] | None:
    """Of a call as it is written; None where it is no whole call, or not of literals alone."""
    try:
        node = ast.parse(call, mode="eval").body
        if isinstance(node, ast.Call) and not node.keywords:
            return [ast.literal_eval(argument) for argument in node.args]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        pass
    return None


def _stated(rest: str, *, below: bool) -> str | None:
    """The output that is stated after a call, on its line, or `below` a prompt that shows it."""
    line, _, after = rest.partition("\n")
    if below and not line.strip():
        return _literal(after.partition("\n")[0].strip())
    said = _SAYS.match(line)
    return _literal(line[said.end() :].strip()) if said else None


def _literal(text: str) -> str | None:
    """The longest beginning that is a literal, as the harness shows it; where a sum is worked out, what it comes to."""
    for end in range(min(len(text), LONGEST), 0, -1):
        last, after = text[end - 1], text[end : end + 2]
        inside = last.isalnum() and (after[:1].isalnum() or (after[:1] == "." and after[1:].isdigit()))
        if inside or not (last.isalnum() or last in "])}'\""):
            continue
        word = _WORDS.get(text[:end].casefold())
        try:
            value = ast.literal_eval(word or text[:end])
            if isinstance(value, tuple) and text[0] != "(":  # what follows a comma may be anything
                continue
            if not _SUM.match(text, end):
                return shown(value)
            _, equals, after = text.partition("\n")[0].rpartition("=")
            return _literal(after.strip()) if equals else None
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


_SAYS = re.compile(
    r"[\s`)]*(?:={1,3}>?|-+>|[\u2192\u279e\u21d2#:]|"
    r"(?:(?:should|must|will) )?(?:returns?|equals?|be|outputs?|gives?|is)\b)"
    r"[\s`:=>]*(?:returns?\b|be\b|equal to\b|to\b)?[\s`:]*",
    re.IGNORECASE,
)
_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}
_SUM = re.compile(r" ?[-+*/%] ?[\w(]")
_NAMED = re.compile(r"[,\n]?\s*\b[A-Za-z_]\w*\s*(?:=(?!=)|:)")
_LABEL = r"^[ \t>*#]*(?:sample |example |expected )?"
_PRINTED = re.compile(
    rf"{_LABEL}input(?: \d+)?[ \t*]*:?[ \t*]*\n?((?:(?!{_LABEL}(?:in|out)put).)*?)"
    rf"{_LABEL}output(?: \d+)?[ \t*]*:?[ \t*]*\n?(.+?)(?=\n[ \t]*\n|\n[ \t>*#]*(?:sample |example )?input|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_FOR = re.compile(
    r"\b(?:for|if|when) (\w+ ?= ?[^\n]{1,300}?),? +(?:the )?(?:output|result|answer|function)s? "
    r"(?:should|must|will)?(?: be| return)? ?(?:is |returns )?([^\n]+)",
    re.IGNORECASE,
)
