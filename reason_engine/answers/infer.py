r"""What kind of answer a question wants, from its words alone.

The order: a program; a form that the user names ("as JSON", "only the letter", "in one word"); listed options; free
text that is asked for; an expression where there is mathematics; a number; yes or no; the one name that a short
question asks for (`names.py`). What fits none of them is free.
"""

from __future__ import annotations

import re
from itertools import pairwise

from reason_engine.answers.forms import BARE, named_kind, without_form
from reason_engine.answers.kind import AnswerKind, AnswerSpec
from reason_engine.answers.names import asks_for_a_name


def infer(question: str) -> AnswerSpec:
    """The answer that a question wants, from its words alone."""
    asked = without_form(question)
    options, form = listed_options(asked), named_kind(question)
    named = form is not None or asked != question or bool(BARE.search(question))
    kind: AnswerKind = "code" if _CODE.search(asked) else form or _kind(asked, bool(options))
    return AnswerSpec(kind, options, bool(_PERCENT.search(asked)), named, _entry_point(asked))


def listed_options(question: str) -> tuple[tuple[str, str], ...]:
    """The options of a question, letter and text: at least two, lettered in sequence from A; else none."""
    for pattern in (_LINE_OPTION, _INLINE_OPTION):
        found = list(pattern.finditer(question))
        run: list[re.Match[str]] = []
        for match in found:  # the last run from A is the list
            letter = match[1].upper()
            if letter == "A":
                run = [match]
            elif run and ord(letter) == ord(run[-1][1].upper()) + 1:
                run.append(match)
        if len(run) >= 2:
            ends = [after.start() for _, after in pairwise(run)] + [_end(question, run[-1].end())]
            return tuple(
                (match[1].upper(), " ".join(question[match.end() : end].split()).rstrip(" ,;"))
                for match, end in zip(run, ends, strict=True)
            )
    return ()


def _kind(question: str, options: bool) -> AnswerKind:
    if options:
        return "choice"
    mathematics = bool(_LATEX.search(question))
    if not mathematics and _FREE.search(question[:200]):
        return "free"
    if _SUM.search(question):
        return "number"
    if mathematics or _ALGEBRA.search(question) or (_EQUATION.search(question) and _UNKNOWN.search(question)):
        return "expression"
    end = question if len(question) <= _WHOLE else question[-_END:]
    if _SURE.search(end) or (_AMOUNT.search(question) and _COUNT.search(end)):
        return "number"
    if _is_yes_no(question):
        return "yes-no"
    return "words" if asks_for_a_name(question) else "free"


def _is_yes_no(question: str) -> bool:
    if re.search(r"\byes or no\b|\btrue or false\b", question, re.IGNORECASE):
        return True
    last = _SENTENCES.split(question.strip())[-1]
    either = re.search(r"\bor\b(?! not\b)", last, re.IGNORECASE)
    return bool(_AUXILIARY.match(last)) and last.rstrip().endswith("?") and not either


def _entry_point(question: str) -> str | None:
    if defined := _DEF.findall(question):
        return defined[-1]
    match = _CALLED.search(question)
    return next((name for name in match.groups() if name), None) if match else None


def _end(question: str, start: int) -> int:
    """Where the text of the last option ends: at its line, which an empty line or an instruction follows."""
    end = question.find("\n", start)
    return len(question) if end < 0 else end


_WHOLE, _END = 1_000, 200
_CODE = re.compile(
    r"^\s*(?:def \w+ ?\(|class \w+[:(]|#include\b|import \w+$|from \w+ import)|```|"
    r"(?:^|[.!?:\n]\s*|\b(?:please|you|to|me|should|and|then) )"
    r"(?:write|implement|complete|fix|code|create|develop|debug|refactor|give me|build)\b[^.\n]{0,60}?"
    r"\b(?:functions?|programs?|quer(?:y|ies)|script|class|regex|subroutine|(?:python|java|c\+\+|rust|sql|html|"
    r"javascript) (?:code|snippet)|code (?:to|that|for|which))\b(?! of\b)",
    re.IGNORECASE | re.MULTILINE,
)
_LINE_OPTION = re.compile(r"^[ \t]*\**\(?([A-Ja-j])(?:\)|[.:](?= ))\**[ \t]*", re.MULTILINE)
_INLINE_OPTION = re.compile(r"(?:(?<=[\s\].:,;?])|^)(?:\((?=[A-Ja-j]\))|(?=[A-J]\)))([A-Ja-j])\)(?=[ $\\])[ ]?")
_FREE = re.compile(
    r"(?:^|[.!?:\n\"]\s*|\b(?:please|can you|could you|would you|and|then|now) )"
    r"(?:write|summari[sz]e|translate|explain|describe|rewrite|compose|draft|discuss|outline|paraphrase|craft|edit"
    r"|list)\b",
    re.IGNORECASE,
)
_LATEX = re.compile(r"\\(?:[A-Za-z]{2,}|[(\[])|\$[^$\n]*[\\^_={][^$\n]*\$|\$[a-zA-Z]\$|\[asy\]")
_ALGEBRA = re.compile(
    r"(?:^|[.!?:\n]\s*)(?:simplify|factor(?:i[sz]e)?|expand|evaluate|differentiate|integrate)\b|"
    r"\bsolve (?:for|the equation)\b",
    re.IGNORECASE,
)
_SIGNED = r"(?:\d[\d,.]*[!%]?|[)(])"
_SUM = re.compile(
    # digits and signs alone, as after "What is": 3 + 4, (2 + 5) * 7, 12 % of 80, the square root of 144
    rf"(?:^|[.!?:\n]\s*|\bwhat(?:'s| is)|\bhow much is|\bcompute|\bcalculate)\s*[-\u2212]?\s*(?:{_SIGNED}\s*"
    rf"(?:[-+*/x\u00d7\u00f7\u2212^]|times|plus|minus|divided by|mod)\s*)+{_SIGNED}[\s\d.)(+*/^-]*(?:=\s*)?\??\s*$|"
    r"\bwhat(?:'s| is) (?:\d[\d.,]*\s*(?:%|percent) of|(?:the )?(?:square|cube|\d+th) root of|\d+ (?:squared|cubed)\b)"
    r"[^.?!]*\??\s*$",
    re.IGNORECASE,
)
_EQUATION = re.compile(r"(?<![A-Za-z])\d*[a-z]\s*(?:[-+*/^]\s*\d+\s*)?=\s*-?\d")
_UNKNOWN = re.compile(r"\b(?:solve\b|what is [a-z]\s*\?|find [a-z]\b(?! ?\w))", re.IGNORECASE)
_NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred"
_NUMBER_WORDS += " thousand million half twice double triple dozen third quarter"
_AMOUNT = re.compile(r"\d|\b(?:" + "|".join(_NUMBER_WORDS.split()) + r")\b", re.IGNORECASE)
_QUANTITIES = (
    "total|sum|cost|price|probability|average|mean|median|mode|number|amount|value|area|perimeter|volume|length|width|"
    "height|depth|distance|speed|rate|ratio|percent|percentage|fraction|difference|product|quotient|remainder|age|"
    "weight|mass|profit|loss|salary|score|temperature|time|capacity|least|greatest|smallest|largest|lowest|highest|"
    "minimum|maximum|measure|degree|circumference|radius|diameter|interest|balance|discount|tip|tax|income|pay|wage|"
    "revenue|expense|budget|change|odds|chance|size|range|sale|selling|original|final|new|combined|overall|net|gross|"
    "worth|charge|fee|bill|savings|result|answer|units|digit|integer|floor|place|year|day|power"
)
_COUNT = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|fast|often|big|large|heavy|wide|deep|late|early|soon|likely|load)\b|"
    r"\bwhat(?:'s| is| are| was| were| will be| would be| should be)?(?: (?:the|his|her|their|its|your|my|[\w']+'s?))?"
    rf"(?: [\w'-]+){{0,3}}? (?:{_QUANTITIES})s?\b|"
    r"\bwhat (?:will|would|should|did|does|do|can|must|is)\b[^.?!]*\b(?:be|cost|pay|weigh|earn|make|get|have)\b"
    r"(?: [\w']+){0,3}\?|"
    r"\b(?:calculate|compute|work out|find (?:the|his|her|out|\$|all)|determine (?:the|how))\b|"
    r"\b(?:add|subtract|multiply|divide|round|convert|express(?:ed)?)\b[^.?!]*\d[^?!]*\bas an? ",
    re.IGNORECASE,
)
_SURE = re.compile(r"\bnumber of (?:ways|degrees)\b|\b(?:what is|find|calculate) the probability\b", re.IGNORECASE)
_AUXILIARY = re.compile(
    r"(?:is|are|was|were|do|does|did|has|have|had|must|may|might|isn't|aren't|doesn't|don't|can (?!you)|"
    r"could (?!you)|will (?!you)|would (?!you))\b",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    r"\b(?:what|which|how many|express\w*|as|in)\b[^.?!]{0,40}?\b(?:percent|percentage|per cent)\b|"
    r"\bpercentage\b[^.?!]*\?|\bin %",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.?!])\s+|\n+")
_DEF = re.compile(r"^def (\w+) ?\(", re.MULTILINE)
_CALLED = re.compile(
    r"\b(?:function|method|class)s? (?:called|named) [`'\"]?(\w+)|\bfunction [`'\"](\w+)|`(\w+)\([^`]*\)`",
    re.IGNORECASE,
)
