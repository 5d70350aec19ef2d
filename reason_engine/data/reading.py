"""Reading: a question whose answer stands in one of the given sources, quoted with its number, or in none of them.

    Sources:
    [1] The red box holds 34 stamps. Room 12 belongs to Anna.
    [2] The train to Tervel leaves from platform 7.

    How many stamps does the red box hold?
    ->
    [1] The red box holds 34 stamps.
    Answer: 34

With `after` the number follows the sentence (`Found: The red box holds 34 stamps. [1]`): it is read off where the
sentence was found, while naming it first takes finding it at once. `alike` of the other facts are neighbours of the
asked one, of the same kind with another name or of the same name, so that neither alone leads to the answer. Where no
source says it, or none is given, one sentence says so.
"""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data._facts import Fact, fact, neighbour
from reason_engine.data.formats import STEPS, Example

SOURCES = "Sources:"
UNKNOWN = "No source that I was given says that."


@families.register("reading")
class Reading(BaseModel):
    """`absent`: share whose answer stands nowhere; `direct`: share answered without the quotation; `alike`: share of
    the other facts that are neighbours; `after`: where the source's number stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    absent: float = Field(0.2, ge=0, le=1)
    direct: float = Field(0.2, ge=0, le=1)
    alike: float = Field(0.0, ge=0, le=1)
    after: bool = False
    sources: tuple[int, int] = (1, 4)
    facts: tuple[int, int] = (1, 3)

    def example(self, rng: random.Random) -> Example:
        asked = fact(rng)
        if rng.random() < self.absent:
            given = self._sources(rng, [], rng.choice((0, rng.randint(*self.sources))), asked)
            return Example(_question(given, asked.question, rng.random() < 0.5), UNKNOWN, "reading")
        given = self._sources(rng, [asked], rng.randint(*self.sources), asked)
        place = next(place for place, text in enumerate(given, 1) if asked.text in text)
        if rng.random() < self.direct:
            return Example(_question(given, asked.question, False), f"Answer: {asked.answer}", "reading")
        quoted = f"Found: {asked.text} [{place}]" if self.after else f"[{place}] {asked.text}"
        answer = f"{quoted}\nAnswer: {asked.answer}"
        return Example(_question(given, asked.question, True), answer, "reading")

    def _sources(self, rng: random.Random, wanted: list[Fact], count: int, asked: Fact) -> list[str]:
        """`count` texts of several facts; the wanted ones are in one of them, no other fact answers the question."""
        texts: list[list[str]] = []
        seen = {asked.question}
        for _ in range(count):
            rows: list[str] = []
            while len(rows) < rng.randint(*self.facts):
                other = neighbour(rng, asked) if self.alike and rng.random() < self.alike else fact(rng)
                if other.question not in seen:
                    seen.add(other.question)
                    rows.append(other.text)
            texts.append(rows)
        for one in wanted:
            rows = rng.choice(texts)
            rows[rng.randrange(len(rows))] = one.text
        return [" ".join(rows) for rows in texts]


def _question(given: list[str], question: str, steps: bool) -> str:
    rows = [f"[{place}] {text}" for place, text in enumerate(given, 1)]
    head = "\n".join([SOURCES, *rows]) + "\n\n" if rows else ""
    return f"{head}{question}\n{STEPS}" if steps else f"{head}{question}"
