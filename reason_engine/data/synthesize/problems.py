"""Problems that a teacher writes: how they are asked for, read, and found new; after arXiv:2212.10560 (Self-Instruct).

Departure: a near duplicate is told by MinHash (0.7), not by ROUGE-L (0.7).

Which attempts at a problem are right, different from each other and wanted; a pure function of what was said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reason_engine.answers import Equality
from reason_engine.data.synthesize.outputs import Refusal
from reason_engine.data.texts import squeeze, words

if TYPE_CHECKING:
    from reason_engine.data.synthesize.synthesize import SynthesizeConfig


NEAR = 0.7


def write_prompt(examples: Sequence[str]) -> str:
    """Asks for one problem like these."""
    shown = "\n\n".join(f"Problem {number}:\n{text}" for number, text in enumerate(examples, 1))
    return WRITE.replace("{shown}", shown)


def written(text: str) -> str:
    """The problem in what the teacher wrote: without a label, and without a solution that follows it."""
    text = _LABEL.sub("", text.strip(), count=1)
    if match := _AFTER.search(text):
        text = text[: match.start()]
    return text.strip()


def accepted(entries: Mapping[int, Mapping[str, Any]], known: Sequence[str]) -> dict[int, Refusal | None]:
    """For each written problem, in order, why it is refused, or None where it is new among all before."""
    from reason_engine.data.filter.near_duplicates import MinHash, NearIndex

    index, hashes = NearIndex(NEAR), MinHash()
    seen: dict[str, str] = {}
    names: list[str] = []

    def keep(text: str, name: str) -> None:
        seen.setdefault(squeeze(text).casefold(), name)
        index.add(hashes.signature(words(text)))
        names.append(name)

    for number, text in enumerate(known):
        keep(text, f"example {number + 1}")
    found: dict[int, Refusal | None] = {}
    for number, entry in sorted(entries.items()):
        text = entry.get("text", "")
        found[number] = _unfit(entry, text)
        if found[number] is not None:
            continue
        if (name := seen.get(squeeze(text).casefold())) is not None:
            found[number] = Refusal("duplicate", {"of": name})
        elif near := index.near(hashes.signature(words(text))):
            place, share = near[0]
            found[number] = Refusal("near-duplicate", {"of": names[place], "similarity": round(share, 3)})
        else:
            keep(text, f"written {number}")
    return found


def _unfit(entry: Mapping[str, Any], text: str) -> Refusal | None:
    if failed := entry.get("failed"):
        return Refusal(failed)
    if entry.get("finish") != "stop":
        return Refusal("cut-off", {"finish": entry.get("finish")})
    return None if len(words(text)) >= 3 else Refusal("no-text")


_LABEL = re.compile(r"^\W*(?:new )?(?:problem|question)(?: \d+)?\W*[:.]\W*(?=\w)", re.IGNORECASE)
_AFTER = re.compile(
    r"^\W*(?:solution|answer|explanation|steps?|problem \d+)\W*:", re.IGNORECASE | re.MULTILINE
)

WRITE = """Here are problems of one kind:

{shown}

Write one more problem of this kind and about as hard, with another story, other names and other numbers. It must have \
one right answer and hold all that is needed to find it. Write the problem only, without its solution."""


Entry = Mapping[str, Any]


async def verdicts(
    reference: str | None, entries: Sequence[Entry], config: SynthesizeConfig, equality: Equality
) -> list[Refusal | None]:
    """For each attempt in order the reason why it is dropped, or None where it is kept."""
    shared = None
    if config.verifier is None and reference is None:
        shared = await agreed(entries, config.agree, equality)
    found: list[Refusal | None] = []
    seen: set[str] = set()
    for entry in entries:
        refusal = _unfit_attempt(entry)
        if refusal is None and config.verifier is not None:
            refusal = _scored(entry, config.threshold)
        elif refusal is None:
            refusal = await _compared(entry, reference if reference is not None else shared, equality)
            if refusal and shared is None and reference is None and refusal.reason != "no-answer":
                refusal = Refusal("no-agreement", {"found": entry.get("answer")})
        text = squeeze(entry.get("content", ""))
        if refusal is None and text in seen:
            refusal = Refusal("duplicate")
        if refusal is None and len(seen) >= config.keep:
            refusal = Refusal("enough", {"keep": config.keep})
        if refusal is None:
            seen.add(text)
        found.append(refusal)
    return found


def enough(hint: bool, judged: Sequence[Refusal | None], config: SynthesizeConfig, known: bool) -> bool:
    """Whether no more attempts are needed. A vote needs all of them; a hint is for a problem that nothing solved."""
    right = sum(refusal is None for refusal in judged)
    if hint:
        return right > 0
    return right >= config.keep and (known or config.verifier is not None)


async def agreed(entries: Sequence[Entry], share: float, equality: Equality) -> str | None:
    """The answer that at least this share of the attempts has, and at least two of them."""
    answers = [entry["answer"] for entry in entries if entry.get("answer") is not None]
    if not answers:
        return None
    (answer, count), *_ = Counter(await equality.cluster(answers)).most_common(1)
    return answer if count >= max(2, share * len(entries)) else None


def _unfit_attempt(entry: Entry) -> Refusal | None:
    if failed := entry.get("failed"):
        return Refusal(failed)
    if entry.get("finish") != "stop":
        return Refusal("cut-off", {"finish": entry.get("finish")})
    if not entry.get("content", "").strip():
        return Refusal("no-text")
    if entry.get("hint") and (match := _TELLS.search(entry["content"])):
        return Refusal("tells-the-hint", {"found": match[0]})
    return None


def _scored(entry: Entry, threshold: float) -> Refusal | None:
    score = entry.get("score")
    if score is None:
        return Refusal("unverifiable", {"said": entry.get("detail", "")})
    if score >= threshold:
        return None
    evidence = {"score": score, "found": entry.get("answer")}
    return Refusal("wrong" if entry.get("answer") is not None else "no-answer", evidence)


async def _compared(entry: Entry, wanted: str | None, equality: Equality) -> Refusal | None:
    answer = entry.get("answer")
    if answer is None:
        return Refusal("no-answer", {"wanted": wanted})
    if wanted is None or not await equality.same(answer, wanted):
        return Refusal("wrong", {"wanted": wanted, "found": answer})
    return None


_TELLS = re.compile(
    r"\b(?:hint|as (?:was |we were |i was |you )?(?:told|given|stated above)|(?:given|provided|told|known) answer"
    r"|(?:told|given) that the (?:right |correct )?answer)\b",
    re.IGNORECASE,
)
