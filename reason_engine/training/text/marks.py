"""Where an answer stands in what a chat template writes, found by rendering it, whatever marks the template has.

A conversation is rendered up to the question with its generation mark, P, and with an answer, W. The answer begins
where W goes on behind P (prefix difference) and ends with the first special token behind it:

    W = P + lead + answer + end + rest          lead: white space, mostly none

This is checked with two answers, one of two lines, before anything is learned. A template that opens a thought at the
end of P, and writes past answers without one, is learned as it will be served: the answer goes on behind P. A thought
that W writes before every answer is not in P, hence nothing the model is to learn. Where answers cannot be found so,
the template is named as the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from reason_engine.errors import SetupError

Render = Callable[[Sequence[Mapping[str, str]], bool], str]
"""(turns, whether the generation mark is wanted) to text."""
QUESTION = "How many are two and two?"
ANSWERS = ("Four are two and two.", "It is 4:\n2 and 2.")
QUOTED = 60


@dataclass(frozen=True, slots=True)
class AnswerMarks:
    """What is written before and behind an answer, the end mark included; `quirks`: what one should know of the
    template, a line each."""

    lead: str
    end: str
    quirks: tuple[str, ...] = ()


def find_marks(render: Render, specials: Sequence[str], eos: str, source: str = "") -> AnswerMarks:
    """`specials`: the tokenizer's special tokens; `source`: the template. Raises SetupError where an answer cannot be
    told from what stands around it."""
    asked = [{"role": "user", "content": QUESTION}]
    prompt = render(asked, True)
    pairs = {_around(prompt, render([*asked, {"role": "assistant", "content": text}], False), text) for text in ANSWERS}
    if len(pairs) > 1:
        raise SetupError(f"the chat template writes one answer otherwise than another: {_fix('the same around each')}")
    ((opened, before, behind),) = pairs
    places = [(at, len(token)) for token in {*specials, eos} if token and (at := behind.find(token)) >= 0]
    at, length = min(places, default=(0, 0))
    end = behind[: at + length] if places else eos
    lead = before if not before.strip() else ""
    return AnswerMarks(lead, end, tuple(_quirks(render, prompt, opened, before, end, bool(places), eos, source)))


def _around(prompt: str, whole: str, answer: str) -> tuple[str, str, str]:
    """What the prompt alone has at its end, what stands before the answer, and what behind it."""
    at = whole.rfind(answer)
    if at < 0:
        raise SetupError(f"the chat template does not write an answer as it stands: {_fix('the whole of it')}")
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole[:at], strict=False))
    shared = sum(1 for _ in alike)
    opened, before = prompt[shared:], whole[shared:at]
    if opened.strip() and before.strip():
        raise SetupError(
            f"the chat template has {_quoted(opened)} at the end of a prompt, and {_quoted(before)} there once it is "
            f"answered, so an answer's place cannot be found: {_fix('the prompt as it was')}"
        )
    return opened, before, whole[at + len(answer) :]


def _fix(what: str) -> str:
    return f"put a chat_template.jinja into the model's folder that writes {what}"


def _quirks(
    render: Render, prompt: str, opened: str, before: str, end: str, found: bool, eos: str, source: str
) -> Iterator[str]:
    if before.strip():
        yield f"writes {_quoted(before)} before a past answer; answers are learned without it, as they are asked for"
    if opened.strip():
        yield f"opens {_quoted(opened)} at the end of a prompt, and what is learned goes on behind it"
    if not found:
        yield f"writes no end of an answer; {eos} is learned as its end"
    elif eos not in end:
        yield f"ends an answer with {_quoted(end)}, not with the tokenizer's {eos}; that is learned as its end"
    if added := _own_system(prompt):
        yield f"adds a system turn of its own where a row has none: {_quoted(added)}"
    if "strftime_now" in source:
        yield "writes the day's date into prompts, so rows read otherwise tomorrow"
    given = "Answer in verse."
    try:
        if given not in render([{"role": "system", "content": given}, {"role": "user", "content": QUESTION}], True):
            yield "drops a system turn"
    except SetupError:
        yield "refuses a system turn; rows that have one cannot be learned"


def _own_system(prompt: str) -> str:
    """The sentence before the question that no row wrote; empty where there is none."""
    lines = [
        line.strip() for line in prompt[: prompt.find(QUESTION)].replace(">", ">\n").replace("<", "\n<").splitlines()
    ]
    return max((line for line in lines if " " in line), key=len, default="")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= QUOTED else f"{text[:QUOTED]}…")
