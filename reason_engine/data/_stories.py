"""The words that word problems are made of. All written for this project."""

from __future__ import annotations

PEOPLE = (
    ("Anna", "She"), ("Ben", "He"), ("Clara", "She"), ("David", "He"), ("Ella", "She"), ("Farid", "He"),
    ("Grace", "She"), ("Hugo", "He"), ("Ines", "She"), ("Jonas", "He"), ("Kira", "She"), ("Liam", "He"),
    ("Mia", "She"), ("Noah", "He"), ("Olga", "She"), ("Pedro", "He"), ("Rosa", "She"), ("Samir", "He"),
    ("Tara", "She"), ("Victor", "He"), ("Wanda", "She"), ("Yusuf", "He"),
)  # fmt: skip
THINGS = (
    "apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "pencils", "shells", "stamps",
    "stickers", "stones", "tickets", "toys", "oranges", "beads", "buttons", "nuts", "photos", "plums", "balls",
)  # fmt: skip
START = (
    "{name} has {n} {things}.", "{name} starts with {n} {things}.", "{name} owns {n} {things}.",
    "At first {name} has {n} {things}.", "There are {n} {things} in {name}'s box.",
)  # fmt: skip
GAIN = (
    "{they} buys {a} more.", "{they} finds {a} more {things}.", "{they} gets {a} more from {other}.",
    "{other} gives {name} {a} {things}.", "Then {name} wins {a} {things}.", "{they} collects another {a}.",
)  # fmt: skip
LOSE = (
    "{they} gives {a} to {other}.", "{they} loses {a} of them.", "{they} sells {a} {things}.",
    "Then {name} uses {a} {things}.", "{other} takes {a} of them away.", "{they} drops {a} and they are gone.",
)  # fmt: skip
PACKS = (
    "{they} buys {b} boxes with {a} {things} each.", "{they} gets {b} bags of {a} {things}.",
    "{other} brings {b} packs of {a} {things} for {name}.",
)  # fmt: skip
PACKS_LOST = (
    "{they} gives {a} {things} to each of {b} friends.", "{they} sells {b} bags of {a} {things}.",
)  # fmt: skip
TIMES = (
    "Then the number of {things} grows to {a} times as many.", "After a year {name} has {a} times as many.",
    "{they} works until there are {a} times as many {things}.",
)  # fmt: skip
SHARE = (
    "{they} shares them equally among {a} people and keeps one share.",
    "{they} puts them into {a} equal piles and keeps only one pile.",
)  # fmt: skip
END = (
    "How many {things} does {name} have now?", "How many {things} are left with {name}?",
    "How many {things} does {name} have in the end?",
)  # fmt: skip
MORE_THAN_BEFORE = ("How many more {things} does {name} have than at the start?",)
COMPARE = {
    "+": ("{other} has {a} more {things} than that.", "{other} now has {a} {things} more than {name}."),
    "-": ("{other} has {a} fewer {things} than that.", "{other} now has {a} {things} less than {name}."),
    "*": ("{other} has {a} times as many {things} as {name} now.",),
}
TOGETHER = (
    "How many {things} do they have together?",
    "How many {things} do {name} and {other} have in all?",
)
ASIDE = (
    "{other} is {a} years old.", "It is {a} degrees outside.", "The walk home takes {a} minutes.",
    "{name} lives at number {a}.",
)  # fmt: skip
