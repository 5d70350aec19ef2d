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


@dataclass(frozen=True, slots=True)
class Fact:
    """What a source may say, and who asks for it."""

    text: str
    question: str
    answer: str


def fact(rng: random.Random) -> Fact:
    """A fresh fact. Half of its people and all of its places have made-up names, so that names must be read."""
    made_up = [_name(rng) for _ in range(2)]
    words = {
        "name": rng.choice((made_up[0], rng.choice(PEOPLE)[0])),
        "place": made_up[1],
        "colour": rng.choice(COLOURS),
        "things": rng.choice(THINGS),
        "n": str(rng.randint(1, 10 ** rng.randint(1, 3))),
    }
    text, question = rng.choice(FORMS)
    return Fact(text.format(**words), question.format(**words), words["n"])


def _name(rng: random.Random) -> str:
    return "".join(rng.choices(SOUNDS, k=rng.randint(2, 3))).capitalize()
