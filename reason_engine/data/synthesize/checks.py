"""What makes a teacher's text fit for a row: rewritten questions, new problems, attempts at a problem.

Written problems follow Wang et al. 2022 (arXiv:2212.10560, Self-Instruct). Departure: a near duplicate is found by
MinHash (0.7), not by ROUGE-L (0.7). All verdicts depend on the texts alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reason_engine.answers import Equality
from reason_engine.data.outputs import Refusal
from reason_engine.data.texts import NearIndex, kept, language_of, numbers, same_numbers, squeeze, words

NEAR = 0.7
Entry = Mapping[str, Any]
"""What the journal keeps of a text."""


def rewrite_fault(before: str, after: str) -> Refusal | None:
    """Why a rewritten question cannot stand for the old one; None where it can."""
    if not after.strip():
        return Refusal("no-text")
    if squeeze(after).casefold() == squeeze(before).casefold():
        return Refusal("unchanged")
    if not same_numbers(before, after):
        return Refusal("numbers", {"before": numbers(before), "after": numbers(after)})
    lost, new = kept(before) - kept(after), kept(after) - kept(before)
    if lost or new:
        return Refusal("protected", {"lost": sorted(lost), "new": sorted(new)})
    share = len(after) / len(before)
    if not 0.5 <= share <= 2:
        return Refusal("length", {"share": round(share, 2)})
    language, found = language_of(before), language_of(after)
    if language and found and language != found:
        return Refusal("language", {"before": language, "after": found})
    return None


def cleaned(text: str) -> str:
    """A model's text without the label, the fence or the quotation marks that it puts around."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and text.count("```") == 2:
        text = text[3:-3].partition("\n")[2].strip()
    head, colon, rest = text.partition(":")
    if colon and len(head) <= 40 and any(word in head.casefold() for word in _LABELS) and rest.strip():
        text = rest.strip()
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == _QUOTES[text[0]] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def cleaned_problem(text: str) -> str:
    """The problem in what the teacher wrote: without a label, and without a solution that follows it."""
    text = _PROBLEM_LABEL.sub("", text.strip(), count=1)
    if match := _SOLUTION.search(text):
        text = text[: match.start()]
    return text.strip()


def problem_refusals(entries: Mapping[int, Entry], known: Sequence[str]) -> dict[int, Refusal | None]:
    """For each written problem, in order, why it is refused, or None where it is new among all before."""
    index, seen, names = NearIndex(NEAR), dict[str, str](), list[str]()

    def keep(text: str, name: str) -> None:
        seen.setdefault(squeeze(text).casefold(), name)
        index.add(index.signature(words(text)))
        names.append(name)

    for number, text in enumerate(known):
        keep(text, f"example {number + 1}")
    found: dict[int, Refusal | None] = {}
    for number, entry in sorted(entries.items()):
        text, found[number] = entry.get("text", ""), _unfinished(entry)
        if found[number] is not None:
            continue
        if len(words(text)) < 3:
            found[number] = Refusal("no-text")
        elif (name := seen.get(squeeze(text).casefold())) is not None:
            found[number] = Refusal("duplicate", {"of": name})
        elif near := index.near(index.signature(words(text))):
            place, share = near[0]
            found[number] = Refusal("near-duplicate", {"of": names[place], "similarity": round(share, 3)})
        else:
            keep(text, f"written {number}")
    return found


@dataclass(frozen=True, slots=True)
class AttemptJudge:
    """Which attempts at a problem are right, different from each other and wanted.

    `scored`: by a verifier's score, from `threshold` on; else by the known answer, else by the answer that a share
    `agree` of the attempts has. At most `keep` are wanted.
    """

    scored: bool
    threshold: float
    keep: int
    agree: float
    equality: Equality

    async def refusals(self, reference: str | None, entries: Sequence[Entry]) -> list[Refusal | None]:
        """For each attempt in order the reason why it is dropped, or None where it is kept."""
        right = reference
        if not self.scored and reference is None:
            right = await agreed_answer(entries, self.agree, self.equality)
        found, seen = list[Refusal | None](), set[str]()
        for entry in entries:
            refusal = _unfit(entry) or (self._score(entry) if self.scored else await self._compare(entry, right))
            if refusal is None:
                if (text := squeeze(entry.get("content", ""))) in seen:
                    refusal = Refusal("duplicate")
                elif len(seen) >= self.keep:
                    refusal = Refusal("enough", {"keep": self.keep})
                seen |= set() if refusal else {text}
            found.append(refusal)
        return found

    def enough(self, hint: bool, refusals: Sequence[Refusal | None], known: bool) -> bool:
        """Whether no more attempts are needed. A vote needs all of them; a hint is for a problem that none solved."""
        right = sum(refusal is None for refusal in refusals)
        return right > 0 if hint else right >= self.keep and (known or self.scored)

    def _score(self, entry: Entry) -> Refusal | None:
        score, answer = entry.get("score"), entry.get("answer")
        if score is None:
            return Refusal("unverifiable", {"said": entry.get("detail", "")})
        if score >= self.threshold:
            return None
        return Refusal("wrong" if answer is not None else "no-answer", {"score": score, "found": answer})

    async def _compare(self, entry: Entry, right: str | None) -> Refusal | None:
        """`right`: the reference, or what the attempts agree on."""
        answer = entry.get("answer")
        if answer is None:
            return Refusal("no-answer", {"wanted": right})
        if right is None:
            return Refusal("no-agreement", {"found": answer})
        same = await self.equality.same(answer, right)
        return None if same else Refusal("wrong", {"wanted": right, "found": answer})


async def agreed_answer(entries: Sequence[Entry], share: float, equality: Equality) -> str | None:
    """The answer that at least this share of the attempts has, and at least two of them."""
    answers = [entry["answer"] for entry in entries if entry.get("answer") is not None]
    if not answers:
        return None
    (answer, count), *_ = Counter(await equality.cluster(answers)).most_common(1)
    return answer if count >= max(2, share * len(entries)) else None


def _unfinished(entry: Entry) -> Refusal | None:
    if failed := entry.get("failed"):
        return Refusal(failed)
    if entry.get("finish") != "stop":
        return Refusal("cut-off", {"finish": entry.get("finish")})
    return None


def _unfit(entry: Entry) -> Refusal | None:
    if refusal := _unfinished(entry):
        return refusal
    if not entry.get("content", "").strip():
        return Refusal("no-text")
    if entry.get("hint") and (match := _HINT.search(entry["content"])):
        return Refusal("tells-the-hint", {"found": match[0]})
    return None


_PROBLEM_LABEL = re.compile(r"^\W*(?:new )?(?:problem|question)(?: \d+)?\W*[:.]\W*(?=\w)", re.IGNORECASE)
_SOLUTION = re.compile(r"^\W*(?:solution|answer|explanation|steps?|problem \d+)\W*:", re.IGNORECASE | re.MULTILINE)
_HINT = re.compile(
    r"\b(?:hint|as (?:was |we were |i was |you )?(?:told|given|stated above)|(?:given|provided|told|known) answer"
    r"|(?:told|given) that the (?:right |correct )?answer)\b",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“"}
_LABELS = ("rewritten", "rewrite", "paraphrase", "translation", "translated", "new version", "reworded")
