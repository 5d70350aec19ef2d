"""Made-up facts: a sentence, the question it answers, and the answer. All written for this project."""

from __future__ import annotations

import random
from dataclasses import dataclass

from reason_engine.data._stories import PEOPLE, THINGS
from reason_engine.data.outside import SOUNDS

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
