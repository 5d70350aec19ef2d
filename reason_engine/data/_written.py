"""Problems that a teacher writes: how they are asked for, read, and found new; after arXiv:2212.10560 (Self-Instruct).

Departure: a near duplicate is told by MinHash (0.7), not by ROUGE-L (0.7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reason_engine.data._account import Refusal
from reason_engine.data._texts import squeeze, words

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
    from reason_engine.data._minhash import MinHash, NearIndex

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
