"""Does `process-rules` refute human solutions, and does it find a corrupted number?

    python -m tests.bench.refutations --data DIR [--seed 0] [--records FILE]

DIR holds `gsm8k/train.jsonl` and `math500/test500.jsonl`. GSM8K's calculator marks (`<<48/2=24>>`) are taken out of the
text. Every refuted equation is printed; those that the writers of the solutions got wrong themselves stand in ERRORS,
checked by hand, and any other counts as a false refutation (exit status 1).

Corrupted: in each solution of GSM8K one of its marked calculations, drawn by the seed, whether `process-rules` can read
it or not, has one digit changed, of its result or of a number before it; found is a solution with a refuted equation
more than before. The last table: questions that the word-problem ledger fits, paragraphs with a fault of form.

FILE holds a model's own solutions, JSON Lines of {set, question, gold, outputs: [{text}]}, of which those to GSM8K are
taken: how many with and without a refuted equation are right, and a vote over all or over those without.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from reason_engine.answers import infer, read
from reason_engine.types import Problem
from reason_engine.verifiers.process_rules.equations import Equation, equations
from reason_engine.verifiers.process_rules.form import fault_of_form
from reason_engine.verifiers.process_rules.ledger import fits

MARK = re.compile(r"<<[^<>]*>>")


def solutions(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """(question, solution with marks) of each set."""
    gsm8k = _rows(folder / "gsm8k" / "train.jsonl")
    math500 = _rows(folder / "math500" / "test500.jsonl")
    return {
        "GSM8K train": [(row["question"], row["answer"].partition("\n####")[0]) for row in gsm8k],
        "MATH-500": [(row["problem"], row["solution"]) for row in math500],
    }


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def refuted(text: str) -> list[Equation]:
    """The refuted equations of a text without marks."""
    return [equation for equation in equations(text) if equation.holds is False]


def corrupt(marked: str, rng: random.Random) -> tuple[str, str] | None:
    """The text with one digit of a calculation changed, without marks, and which part it was in; None without any."""
    marks = list(MARK.finditer(marked))
    if not marks:
        return None
    mark = rng.choice(marks)
    before, after = MARK.sub("", marked[: mark.start()]), MARK.sub("", marked[mark.end() :])
    result = re.match(r"\s*\$?\s*([\d,.]*\d)", after)
    expression = re.search(r"[\d(.$][-+*/xX\d().,$% ]*[\d)%]\s*=\s*\$?\s*$", before)
    operands = list(re.finditer(r"\d+", expression[0])) if expression else []
    places = [("result", len(before) + result.start(1), result[1])] if result else []
    if expression and operands:
        chosen = rng.choice(operands)
        places.append(("operand", expression.start() + chosen.start(), chosen[0]))
    if not places:
        return None
    kind, start, number = rng.choice(places)
    digits = [place for place, sign in enumerate(number) if sign.isdecimal()]
    place = rng.choice(digits)
    others = [digit for digit in "123456789" if digit != number[place]]
    text, at = before + after, start + place
    return text[:at] + rng.choice(others) + text[at + 1 :], kind


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=Path)
    asked = parser.parse_args(given)
    false = 0
    print("| set | solutions | equations | right | not judged | refuted | of them the writer's errors | false |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    listed: list[str] = []
    sets = solutions(asked.data)
    for name, rows in sets.items():
        found = [equation for _, solution in rows for equation in equations(MARK.sub("", solution))]
        wrong = [f"{equation.left} = {equation.right}" for equation in found if equation.holds is False]
        errors = [text for text in wrong if text in ERRORS]
        listed += [f"{'error' if text in ERRORS else 'FALSE'}  {text}" for text in wrong]
        right = sum(equation.holds is True for equation in found)
        false += len(wrong) - len(errors)
        counted = [len(rows), len(found), right, len(found) - right - len(wrong)]
        counted += [len(wrong), len(errors), len(wrong) - len(errors)]
        print(f"| {name} | " + " | ".join(f"{count:,}" for count in counted) + " |")
    print("\n" + "\n".join(listed) + "\n")
    rng = random.Random(asked.seed)
    counts = {kind: [0, 0] for kind in ("result", "operand")}
    for _, solution in sets["GSM8K train"]:
        made = corrupt(solution, rng)
        if made is not None:
            text, kind = made
            counts[kind][0] += 1
            counts[kind][1] += len(refuted(text)) > len(refuted(MARK.sub("", solution)))
    print("| corrupted | solutions | found | share, % |\n|---|---:|---:|---:|")
    for kind, (all_of, found_of) in counts.items():
        print(f"| {kind} | {all_of:,} | {found_of:,} | {100 * found_of / all_of:.1f} |")
    total, found_all = (sum(count[number] for count in counts.values()) for number in (0, 1))
    print(f"| both | {total:,} | {found_all:,} | {100 * found_all / total:.1f} |")
    print("\n| set | questions | that the ledger fits | steps | with a fault of form |\n|---|---:|---:|---:|---:|")
    for name, rows in sets.items():
        fitting = sum(fits(Problem(question)) for question, _ in rows)
        steps = [step for _, solution in rows for step in MARK.sub("", solution).split("\n\n") if step.strip()]
        faults = sum(bool(fault_of_form(step, (), "Answer:")) for step in steps)
        print(f"| {name} | {len(rows):,} | {fitting:,} | {len(steps):,} | {faults:,} |")
    if asked.records is not None:
        _tell_paths(asked.records)
    return int(false > 0)


def _tell_paths(file: Path) -> None:
    """The tables of a model's own solutions."""
    texts: dict[str, list[tuple[str, str]]] = {}
    for row in map(json.loads, file.read_text("utf-8").splitlines()):
        if row["set"] == "gsm8k":
            texts.setdefault(row["question"], []).extend((output["text"], row["gold"]) for output in row["outputs"])
    counts = {"with": [0, 0], "without": [0, 0]}
    votes = [0, 0]
    several = 0
    for question, found in texts.items():
        spec, gold = infer(question), found[0][1].replace(",", "")
        paths = [(reading.value if (reading := read(text, spec)) else None, bool(refuted(text))) for text, _ in found]
        for value, wrong in paths:
            count = counts["with" if wrong else "without"]
            count[0] += 1
            count[1] += value == gold
        if len(paths) >= LEAST:
            several += 1
            whole = [value for value, _ in paths if value is not None]
            kept = [value for value, wrong in paths if value is not None and not wrong] or whole
            votes = [
                right + (bool(voters) and Counter(voters).most_common(1)[0][0] == gold)
                for right, voters in zip(votes, (whole, kept), strict=True)
            ]
    print("\n| solutions of the model | number | right |\n|---|---:|---:|")
    for name, (number, right) in counts.items():
        print(f"| {name} a refuted equation | {number} | {right} |")
    print("\n| vote of | questions | right |\n|---|---:|---:|")
    for name, right in zip(("all", "those without a refuted equation"), votes, strict=True):
        print(f"| {name} | {several} | {right} |")


LEAST = 4
"""Solutions of a question beyond which they vote."""


ERRORS = frozenset(
    (
        "192 * 100 = 1920", "6 * 2.5 = 18.00", "6 / 3 = .5", "4080 + 4080 / 2 = 4000 + 2040", "4000 + 2040 = 6120",
        "3 / 1 = 1", "100 * 0.75 = 0.75", "1550 / 50 = 29", "8 * 3 = 240", "4200 + 3000 = 8600", "10 * .5 = 10",
        "2 * 8 = 24", "200 * .55 = 100", "13 + 4 + 16 = 45", "7 + 9 + 1 + 2 = 19.50", "70 + 40 = 100",
        "10 * 1248 = 11480", "2 / 12 = .125", "3 * (8 / 16) = 6", "4 + 4 + 6 = 18", "50 - 8 = 44", "500 / 2 / 5 = 200",
        "1152 / 1536 = .5", "14 * 20 = 140", "(- 4) ^ 2 + 4 * 1 * (- 1) = 20",
    )
)  # fmt: skip
"""What the writers of the two sets got wrong, each checked by hand: the sides differ in every reading."""

if __name__ == "__main__":
    sys.exit(main())
