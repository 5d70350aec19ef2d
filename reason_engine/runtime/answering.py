r"""How a run asks for an answer, reads it, and asks once more where a path gives none.

Asking: by the kind of answer that the question wants, a sentence in the user's turn, on a line of its own. A box has an
end, which a marked line has not, and chat models were trained on it; so values go into a box, short words on a marked
line, and free text, code, tools, schemas and forms that the user names are asked for as they stand. A profile's own
words stand in place of the sentence.

Forcing: a path that was cut, or ended without a value, is continued with the end of its thought and the opening of an
answer (the probe of DEER, Yang et al. 2025, arXiv:2504.15895, section 3; the budget forcing of s1, Muennighoff et al.
2025, arXiv:2501.19393, section 3.1). The geometric mean probability of the tokens that follow weighs its vote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

from reason_engine import answers
from reason_engine.answers import AnswerKind, AnswerSpec, Reading
from reason_engine.profile import Profile
from reason_engine.runtime.run import Run
from reason_engine.types import Draw, Path, Problem, TokenLogprob

FORCED = 32
"""Tokens of a forced answer, kept for every path from its start."""
FEWEST = 8
"""With fewer than these no answer is forced."""
THOUGHT, ANSWER_ROOM = 4096, 512
"""Tokens of a thought that is not cut short, where nothing says more; tokens kept for the answer after it."""
OPENING_ROOM = 64
"""Tokens of the context that are kept for the opening of a forced answer."""
CREDIBLE = 0.5
"""A forced answer of lower probability is no vote."""


MARKED = "marker, of another kind"
"""The rule by which a marked answer is read that is not of the kind that the question seemed to want."""


def spec_of(problem: Problem, kind: AnswerKind | None) -> AnswerSpec:
    """What the request wants: `kind` where it names one, else tools, a schema, else what the question says."""
    if kind is None and (problem.structured or problem.tools):
        return AnswerSpec("json" if problem.structured else "tool", named=True)
    spec = answers.infer(problem.asked)
    return spec if kind is None else replace(spec, kind=kind)


def asking(spec: AnswerSpec, profile: Profile, *, thinks: bool) -> str:
    """What is put below the question where a reasoned answer is wanted; empty: nothing."""
    if profile.ask.steps is not None:
        return "" if thinks else profile.ask.steps
    if spec.named:
        return ""
    lead, form = FORMS.get(spec.kind, ("", ""))
    return form[:1].upper() + form[1:] if thinks else lead + form


def read_path(run: Run, text: str, prompt: str, *, tools: bool, cut: bool = False) -> Reading | None:
    """The answer of a path's whole text; None where it gives none. `cut`: a limit ended it.

    A tool call counts as its name and arguments, a JSON answer as its canonical text, an answer of a task with a
    checker as the text on its marked line, any other as `answers.read` reads its kind.
    """
    parsed = run.engine.parse(text, prompt=prompt)
    if tools and parsed.tool_calls:
        calls = [[call.name, answers.canonical_json(call.arguments) or call.arguments] for call in parsed.tool_calls]
        return Reading(json.dumps(calls, sort_keys=True), "strong", "tool")
    if run.problem.structured is not None:
        content = parsed.content.strip()
        value = answers.canonical_json(content) or content
        return Reading(value, "strong", "json") if value else None
    found = read_content(parsed.content, run.spec, run.profile, exact=run.checker is not None, cut=cut)
    return None if run.given and found and found.rule == MARKED else found


def read_content(content: str, spec: AnswerSpec, profile: Profile, *, exact: bool, cut: bool = False) -> Reading | None:
    """The answer in what follows a thought. `exact`: the text of the marked line, which a checker reads. A model whose
    profile says how it marks its answers means what it marks, of whatever kind (`MARKED`)."""
    marker = profile.answer_marker
    if not exact and (found := answers.read(content, spec, marker=marker, cut=cut)):
        return found
    if exact or (marker and profile.ask.steps is not None):
        value = answers.find(content, marker=marker)
        kept = value and (" ".join(value.split()) if exact else answers.normalise(value))
        return Reading(kept, "strong", "marker" if exact else MARKED) if kept else None
    return None


async def same_named(run: Run, given: list[str]) -> list[str]:
    """Each of these answers as the first that it equals by the kind that is wanted. A checker tells texts apart:
    (10-4)*4 is not the vote 24."""
    kind = "tool" if run.problem.tools else "json" if run.problem.structured else run.spec.kind
    if run.checker:
        return given
    names = await run.equality.cluster(given, None if kind == "free" else kind)
    if kind not in ("tool", "json"):
        return names
    first: dict[str, str] = {}  # what is counted is shown as it was given, not as it was compared
    return [first.setdefault(name, answer) for name, answer in zip(names, given, strict=True)]


def reread(run: Run, paths: Sequence[Path]) -> list[Path]:
    """The paths of a first wave, read again where their contents show that the run's kind of answer is another one; it
    is that of the run then. What a path was asked once more for stays: an answer, or none that it was sure of."""
    finished = [path for path in paths if path.finished and path.strength != "forced"]
    settled = run.given or run.checker or run.problem.structured or run.problem.tools
    if settled or not finished:
        return list(paths)

    def content(path: Path) -> str:
        return run.engine.parse(_unforced(run, path), prompt=path.prompt).content

    spec = answers.revise(run.spec, list(map(content, finished)))
    if spec == run.spec:
        return list(paths)
    run.spec, run.asked = spec, run.asked or run.spec

    def again(path: Path) -> Path:
        if path.strength == "forced" or path.weight < 1.0:
            return path
        found = read_path(run, path.text, path.prompt, tools=True, cut=path.cut)
        return replace(path, answer=found and found.value, strength=found and found.strength)

    read = [again(path) for path in paths]
    run.reread(read)
    return read


def _unforced(run: Run, path: Path) -> str:
    """What a path says by itself, without what it was asked once more for."""
    kinds = {spec.kind for spec in (run.spec, run.asked) if spec is not None}
    marks = [form.text.strip() for kind, form in OPENINGS.items() if kind in kinds]
    if run.profile.answer_marker:
        marks.append(run.profile.answer_marker)
    place = max((path.text.rfind(mark) for mark in marks), default=-1)
    return path.text if path.weight >= 1.0 or place < 0 else path.text[:place]


def whole_thoughts(run: Run, draw: Draw) -> Draw:
    """As many paths as what is left of the budget has whole thoughts for, each of its even share: fewer paths, not
    shorter thoughts."""
    free = run.budget.free
    if free is None:
        return draw
    n = max(1, min(draw.n, free // ((run.thought or THOUGHT) + ANSWER_ROOM)))
    most = max(1, free // n)
    return replace(draw, n=n, max_tokens=min(draw.max_tokens or most, most))


@dataclass(frozen=True, slots=True)
class Opening:
    """How an answer is forced: the text that is given, and what ends the few tokens that follow it."""

    text: str
    stop: tuple[str, ...]


def forcible(run: Run) -> bool:
    """Whether a path without an answer is asked once more: its kind has a short value, and nobody asked for the plain
    text."""
    if not run.force or run.plain or run.checker or run.problem.structured or run.problem.tools:
        return False
    return run.spec.kind in OPENINGS


def last_turn(spec: AnswerSpec) -> str:
    """The user's turn that asks for the answer alone to what stands above it."""
    return f"Give only the final answer of what you worked out above. {_LAST.get(spec.kind, '')}Write nothing else."


def opening(run: Run, text: str, prompt: str) -> Opening:
    """What goes on from this text of a path: out of its thought, if it is in one, to the beginning of an answer."""
    info, close = run.engine.info, ""
    if info.thinking(run.think) and not run.engine.parse(text, prompt=prompt).content and info.think_end not in text:
        close = info.think_close
    marker = run.profile.answer_marker
    if run.profile.ask.steps is not None and marker:
        return Opening(f"{close}\n{marker}", ("\n",))
    form = OPENINGS[run.spec.kind]
    return replace(form, text=close + (form.text.lstrip() if close else form.text))


def forced_text(text: str) -> str:
    """What was generated, without what follows the brace that closes the box."""
    depth = 1
    for place, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if not depth:
            return text[: place + 1]
    return text


def probability(tokens: Sequence[TokenLogprob], shown: str) -> float:
    """The geometric mean probability of the tokens that wrote `shown`; a half where the engine tells none."""
    kept, length = list[float](), 0
    for token in tokens:
        if length >= len(shown):
            break
        kept.append(token.logprob)
        length += len(token.token)
    return exp(min(0.0, sum(kept) / len(kept))) if kept else CREDIBLE


# wordings -----------------------------------------------------------------------------------------------------------
_STEPS = "Think step by step, then "
_BOX = ("Please reason step by step, and ", "put your final answer within \\boxed{}.")
FORMS: Mapping[AnswerKind, tuple[str, str]] = {
    "number": _BOX,
    "expression": _BOX,
    "choice": (_STEPS, "give the letter of the right option within \\boxed{}."),
    "yes-no": (_STEPS, "answer yes or no within \\boxed{}."),
    "words": (_STEPS, "give only the answer on a last line that starts with 'Answer:'."),
}
"""What asks for the steps, and for the form; a model that thinks by itself is asked for the form alone."""
_LAST: Mapping[AnswerKind, str] = {
    "number": "Put it within \\boxed{}. ",
    "expression": "Put it within \\boxed{}. ",
    "choice": "Put its letter within \\boxed{}. ",
    "yes-no": "Put yes or no within \\boxed{}. ",
    "words": "Put it on a line that starts with 'Answer:'. ",
}
_BOXED = "\n\nThe final answer is \\boxed{"
OPENINGS: Mapping[AnswerKind, Opening] = {
    "number": Opening(_BOXED, ("}",)),
    "expression": Opening(_BOXED, ("\n",)),
    "choice": Opening(_BOXED, ("}",)),
    "yes-no": Opening(_BOXED, ("}",)),
    "words": Opening("\n\nAnswer:", ("\n",)),
}
