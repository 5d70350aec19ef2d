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

Made-up facts: a sentence, the question it answers, and the answer. All written for this project.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data.formats.examples import STEPS, Example
from reason_engine.recipes.outside import SOUNDS
from reason_engine.recipes.words import PEOPLE, THINGS

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


COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "yellow")
FORMS = (
    ("The {colour} box holds {n} {things}.", "How many {things} does the {colour} box hold?"),
    ("{name} keeps {n} {things}.", "How many {things} does {name} keep?"),
    ("{name} lives at number {n}.", "At which number does {name} live?"),
    ("A ticket to {place} costs {n} coins.", "How many coins does a ticket to {place} cost?"),
    (
        "The train to {place} leaves from platform {n}.",
        "From which platform does the train to {place} leave?",
    ),
    ("Room {n} belongs to {name}.", "Which room belongs to {name}?"),
    ("The tower of {place} is {n} metres high.", "How many metres high is the tower of {place}?"),
    ("{place} has {n} bridges.", "How many bridges does {place} have?"),
    ("The code of {name} is {n}.", "What is the code of {name}?"),
    ("The walk to {place} takes {n} minutes.", "How many minutes does the walk to {place} take?"),
)
OTHER_KIND = 0.25
"""Share of neighbours that tell something else of the same name."""
ALIKE = 0.3
"""Share of the others whose name begins or ends as the asked one does."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a source may say, and who asks for it."""

    text: str
    question: str
    answer: str
    form: int
    words: dict[str, str]


def fact(rng: random.Random) -> Fact:
    """A fresh fact. Half of its people and all of its places have made-up names, so that names must be read."""
    words = _words(rng)
    return _fact(rng.randrange(len(FORMS)), words)


def neighbour(rng: random.Random, of: Fact) -> Fact:
    """A fact that only a name tells from this one, or one of another kind about the same name; another question."""
    while True:
        fresh, form = _words(rng), of.form
        if rng.random() < OTHER_KIND:
            form = rng.randrange(len(FORMS))
            fresh = {**of.words, "n": fresh["n"]}
        else:
            fresh = {**fresh, "things": of.words["things"]}
            if rng.random() < ALIKE:
                fresh |= {key: _like(rng, of.words[key]) for key in ("name", "place")}
        found = _fact(form, fresh)
        if found.question != of.question:
            return found


def _fact(form: int, words: dict[str, str]) -> Fact:
    text, question = FORMS[form]
    return Fact(text.format(**words), question.format(**words), words["n"], form, words)


def _words(rng: random.Random) -> dict[str, str]:
    made_up = [_name(rng) for _ in range(2)]
    return {
        "name": rng.choice((made_up[0], rng.choice(PEOPLE)[0])),
        "place": made_up[1],
        "colour": rng.choice(COLOURS),
        "things": rng.choice(THINGS),
        "n": str(rng.randint(1, 10 ** rng.randint(1, 3))),
    }


def _name(rng: random.Random) -> str:
    return "".join(rng.choices(SOUNDS, k=rng.randint(2, 3))).capitalize()


def _like(rng: random.Random, name: str) -> str:
    """A name that shares its beginning or its end."""
    sound, cut = rng.choice(SOUNDS), rng.randint(1, max(1, len(name) - 2))
    return name[: cut + 1] + sound if rng.random() < 0.5 else sound.capitalize() + name[cut:].lower()
