"""How a value of each kind is taken out of the text at a cue, and weakly out of a text's end. Part of `answers`."""

from __future__ import annotations

import re

from reason_engine.answers.cues import Cue
from reason_engine.answers.kind import AnswerSpec
from reason_engine.answers.values.choices import chosen, is_choice, last_choice, last_verdict, verdict
from reason_engine.answers.values.expression import expression, is_list, is_prose, is_symbolic, last_mathematics
from reason_engine.answers.values.number import quantity, reduce_number, show
from reason_engine.answers.values.plain import LIMIT, strip
from reason_engine.answers.values.words import date_in, is_short, last_bold, words


def of_cue(line: str, cue: Cue, spec: AnswerSpec) -> str | None:
    """The value of a kind on a cue's line; None where there is none of the kind."""
    if cue.rule in ("marker", "label", "result") and not cue.late and not is_short(_sentences(line)[0]):
        return None  # "Answer: Let us first add 3 and 4" above the work
    match spec.kind:
        case "number":
            return _number(line, percent=spec.percent)
        case "expression":
            return expression(line) if cue.rule == "box" else _expression(line)
        case "choice":
            return chosen(line, spec.options)
        case "yes-no":
            return verdict(line)
        case "words":
            value = words(_sentences(line)[0])
            return value if is_short(value) else None
        case _:
            marked = cue.rule == "marker" or (cue.rule in ("box", "hashes", "key", "label") and is_short(line))
            return strip(line) if marked and len(line) <= LIMIT else None


def of_whole(text: str, spec: AnswerSpec) -> str | None:
    """The value of a text that is nothing else."""
    value = text.strip()
    if len(value) > LIMIT or "\n" in value:
        return None
    known = quantity(value)
    match spec.kind:
        case "number" | "free" if known is not None:
            return _number(value, percent=spec.percent)
        case "expression" if value and not is_prose(value, 0):
            return expression(last_mathematics(value) or value)
        case "choice" | "free":
            return is_choice(value, spec.options) if value else None
        case "yes-no":
            return verdict(value) if is_short(value) else None
        case "words" if "**" not in value.strip("*"):
            return words(value) if len(value.split()) <= _FEW else None
        case _:
            return None


def of_end(text: str, spec: AnswerSpec) -> tuple[str | None, str]:
    """The value that stands at the end of a text without a cue, and by which rule."""
    lines = [line for line in text.splitlines() if not _EMPTY.fullmatch(line)]
    match spec.kind:
        case "number":
            return _last_number(lines, percent=spec.percent), "last-line"
        case "expression":
            if (found := last_mathematics(text)) is not None and not is_prose(found):
                return expression(found), "mathematics"
            return _last_number(lines, percent=spec.percent), "last-line"
        case "choice":
            return last_choice(text, spec.options)
        case "yes-no":
            return last_verdict(text), "first-word"
        case "words":
            line = lines[-1] if lines else ""
            found = last_bold(text) or date_in(line) or line
            return (words(found) or None if is_short(found) else None), "last-line"
        case _:
            return None, ""


def _number(line: str, *, percent: bool) -> str | None:
    """A bare number; an expression where the answer is none after all; the number that a sentence gives."""
    if percent or (known := quantity(line)) is None:
        left, equals, right = line.rpartition("=")
        if equals and quantity(right) is None and quantity(left) is not None:  # 18 = 9 * 2
            return _number(left, percent=percent)
        body = right
        if quantity(body) is None and (is_list(line) or is_symbolic(body)):
            return expression(line)
        for part in (*_bold_numbers(line), *_sentences(line)):
            if found := reduce_number(part, percent=percent):
                return found
        return None
    return show(known[0])


def _expression(line: str) -> str | None:
    sentence = _sentences(line)[0]
    value = _ASIDE.split(sentence)[0]
    if not is_prose(value):
        return expression(value) or None
    found = last_mathematics(sentence)
    if found is not None and not is_prose(found):
        return expression(found)
    return reduce_number(sentence) if len(re.findall(r"\d[\d.,/]*", sentence)) == 1 else None


def _last_number(lines: list[str], *, percent: bool) -> str | None:
    """The number of the last line, else of the one before it: of its last sentence that has one."""
    for number in range(len(lines) - 1, max(-1, len(lines) - 3), -1):
        sentences = _sentences(_STEP.sub("", lines[number]))
        for place in range(len(sentences) - 1, -1, -1):
            if _DENIED.search(sentences[place]):
                continue
            if bold := _bold_numbers(sentences[place]):
                return reduce_number(bold[0], percent=percent)
            before = "\n".join([*lines[max(0, number - _ABOVE) : number], *sentences[:place]])
            if found := reduce_number(sentences[place], percent=percent, before=before):
                return found
    return None


def _bold_numbers(line: str) -> list[str]:
    """The number in bold, where a line has one alone."""
    found = [span for span in re.findall(r"\*\*([^*\n]+)\*\*", line) if quantity(span) is not None]
    return found if len(found) == 1 else []


def _sentences(line: str) -> list[str]:
    return _SENTENCE.split(line.strip())


_ABOVE, _FEW = 3, 4
_DENIED = re.compile(r"\b(?:is|are|was) not \$?\d|\bnot (?:sure|possible|known|enough)\b|\bcannot be\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?;])(?<!\bM[rs]\.)(?<!\bMrs\.)(?<!\bDr\.)\s+(?=[A-Z(*])")
_ASIDE = re.compile(r", (?=(?:which|where|since|because|so|as|with|for|when|if)\b)| (?:because|since) ")
_EMPTY = re.compile(r"\s*(?:```\w*|\\\[|\\\]|\$\$|-{3,}|\*{3,}|_{3,})?\s*")
_STEP = re.compile(r"^\s*[*#>-]*\s*(?:step \d+\b|\d{1,2}[.)](?=\s))[:.*]*", re.IGNORECASE)
