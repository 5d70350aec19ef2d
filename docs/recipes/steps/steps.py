"""Labelled steps of GSM8K's training problems: the human solutions, and the same with one mistake.

    python docs/recipes/steps/steps.py GSM8K/train.jsonl OUT [--spoiled 2] [--held-out 400] [--seed 13]

A solution is its own sentences, one a step, and a last step with the answer; steps are written in one of several ways
(plain, numbered, with mathematics between delimiters), since a chat model's steps look different from these sentences.
A spoiled one has one mistake: a slip (a result is wrong), a number that belongs elsewhere, the wrong operation, or an
answer that is one of the values on the way. What follows computes on with the wrong value, as a model would; every step
from the mistake on is labelled 0. `train.jsonl` and `held-out.jsonl` share no problem. Test problems are never read.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from reason_engine.verifiers.arithmetic import evaluate

MARKED = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
NUMBER = re.compile(r"(?<![\d.,])\d+(?:\.\d+)?(?![\d]|[.,]\d)")
OPERATORS = {"+": "-*", "-": "+/", "*": "+/", "/": "*-"}
KINDS = ("slip", "operand", "operator", "answer")


@dataclass(frozen=True)
class Line:
    """A sentence: text before the calculation's result, the expression, its result, text after."""

    before: str
    expression: str
    result: str
    after: str


@dataclass(frozen=True)
class Spoiled:
    """Steps, and the number of the first wrong one."""

    steps: tuple[str, ...]
    first: int


def value_of(expression: str) -> Fraction | None:
    """Decimals are written as fractions of integers first."""

    def whole(found: re.Match[str]) -> str:
        digits, _, decimals = found[0].partition(".")
        return found[0] if not decimals else f"({digits}{decimals}/1{'0' * len(decimals)})"

    return evaluate(re.sub(r"\d*\.\d+", whole, expression.replace(" ", "")))[0]


def written(value: Fraction) -> str | None:
    """As people write it; None where it has no short form or is negative."""
    if value < 0 or value > 10**7:
        return None
    if value.denominator == 1:
        return str(value.numerator)
    text = f"{float(value):.2f}"
    return text.rstrip("0") if Fraction(text) == value else None


def lines_of(solution: str) -> tuple[list[Line], str] | None:
    """(lines, answer); None where a line has not exactly one calculation that can be computed."""
    *texts, last = solution.split("\n")
    if not last.startswith("#### ") or not 2 <= len(texts) <= 8:
        return None
    lines: list[Line] = []
    for text in texts:
        found = list(MARKED.finditer(text))
        if len(found) != 1 or not text[found[0].end() :].startswith(found[0][2]):
            return None
        value = value_of(found[0][1])
        if value is None or written(value) != found[0][2]:
            return None
        before, after = text[: found[0].start()], text[found[0].end() + len(found[0][2]) :]
        lines.append(Line(before, found[0][1].replace(" ", ""), found[0][2], after))
    answer = last.removeprefix("#### ").replace(",", "")
    return (lines, answer) if lines[-1].result == answer else None


def replaced(text: str, old: str, new: str) -> str:
    """The number in place of the other, where it stands by itself."""
    return NUMBER.sub(lambda found: new if found[0] == old else found[0], text)


def stated(line: Line, expression: str, result: str) -> Line:
    """The line with another calculation; its text says the expression again where it said it before."""
    said = line.before.replace("x", "*").replace("×", "*").replace("÷", "/").replace("$", "").replace(" ", "")
    if not said.rstrip("=").endswith(line.expression):
        before = f"{line.before.rstrip().rstrip('=').rstrip(' $')} = {expression} = "
    else:
        start = line.before.rstrip(" =$")
        kept = len(line.expression)
        while kept and start:
            start, last = start[:-1], start[-1]
            kept -= last not in " $"
        before = f"{start}{expression} = "
    return Line(before, expression, result, line.after)


def mistaken(rng: random.Random, lines: Sequence[Line], at: int, kind: str, known: Sequence[str]) -> Line | None:
    """Line `at` with that mistake; None where it cannot be made. `known`: numbers that stand before it."""
    line = lines[at]
    if kind == "slip":
        value, size = Fraction(line.result), max(1, len(line.result.replace(".", "")) - 1)
        step = Fraction(rng.choice((1, 2, 5, 10 ** (size - 1), 10**size)) * rng.choice((-1, 1)))
        wrong = written(value + step)
        return None if wrong in (None, "0", line.result) else Line(line.before, line.expression, wrong, line.after)
    numbers = NUMBER.findall(line.expression)
    if kind == "operand":
        old = rng.choice(numbers) if numbers else ""
        others = [one for one in known if one not in numbers and one != line.result]
        if not others:
            return None
        expression = replaced(line.expression, old, rng.choice(others))
    else:
        places = [n for n, letter in enumerate(line.expression) if letter in OPERATORS and n]
        if not places:
            return None
        place = rng.choice(places)
        other = rng.choice(OPERATORS[line.expression[place]])
        expression = line.expression[:place] + other + line.expression[place + 1 :]
    value = value_of(expression)
    result = None if value is None else written(value)
    return None if result in (None, line.result) else stated(line, expression, result)


def spoiled(rng: random.Random, question: str, lines: Sequence[Line], answer: str, kind: str) -> Spoiled | None:
    """The solution with one mistake of that kind."""
    if kind == "answer":
        others = [line.result for line in lines[:-1] if line.result != answer]
        return Spoiled((*map(sentence, lines), others[-1]), len(lines)) if others else None
    at = rng.randrange(len(lines))
    known = [*NUMBER.findall(question), *(line.result for line in lines[:at])]
    wrong = mistaken(rng, lines, at, kind, known)
    if wrong is None:
        return None
    made, changed = [*lines[:at], wrong], {lines[at].result: wrong.result}
    for line in lines[at + 1 :]:
        expression, before, after = line.expression, line.before, line.after
        for old, new in changed.items():
            expression, before = replaced(expression, old, f"<{new}>"), replaced(before, old, f"<{new}>")
            after = replaced(after, old, f"<{new}>")
        expression, before, after = (re.sub(r"<([\d.]+)>", r"\1", text) for text in (expression, before, after))
        value = value_of(expression)
        result = None if value is None else written(value)
        if result is None:
            return None
        if result != line.result:
            changed[line.result] = result
        made.append(Line(before, expression, result, after))
    return Spoiled((*map(sentence, made), made[-1].result), at)


def sentence(line: Line) -> str:
    """The line as text."""
    return f"{line.before}{line.result}{line.after}"


def dressed(rng: random.Random, steps: Sequence[str]) -> list[str]:
    """The steps in one way of writing; the last one states the answer."""
    *texts, answer = steps
    way = rng.choice(("", "", "{n}. ", "Step {n}: ", "**Step {n}:** ", "## Step {n}\n"))
    if rng.random() < 0.4:
        opened, closed = rng.choice((("\\(", "\\)"), ("$", "$"), ("\\[ ", " \\]")))
        texts = [mathematical(text, opened, closed) for text in texts]
    last = rng.choice((
        "The final answer is \\(\\boxed{{{a}}}\\).", "Therefore, the answer is $\\boxed{{{a}}}$.",
        "\\[ \\boxed{{{a}}} \\]", "So the answer is {a}.", "Answer: {a}", "#### {a}",
    ))  # fmt: skip
    return [*(way.format(n=n) + text for n, text in enumerate(texts, 1)), last.format(a=answer)]


def mathematical(text: str, opened: str, closed: str) -> str:
    """The equation of a sentence between delimiters, with the signs that are usual there."""

    def framed(found: re.Match[str]) -> str:
        body = found[0].replace("*", " \\times ").replace("x", "\\times").replace("$", "")
        return opened + re.sub(" +", " ", body).strip() + closed

    return re.sub(r"[\d.$(][\d.$()\s*x/+-]*=[\s$]*\d+(?:\.\d+)?", framed, text, count=1)


def main() -> None:
    options = argparse.ArgumentParser(description="Write labelled steps of GSM8K's training problems.")
    options.add_argument("source", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--spoiled", type=int, default=2, help="spoiled solutions of a problem, beside the right one")
    options.add_argument("--held-out", type=int, default=400, help="problems set aside")
    options.add_argument("--seed", type=int, default=13)
    given = options.parse_args()
    rng = random.Random(given.seed)
    problems = [json.loads(row) for row in given.source.read_text("utf-8").splitlines()]
    rng.shuffle(problems)
    given.out.mkdir(parents=True, exist_ok=True)
    parts = {"held-out": problems[: given.held_out], "train": problems[given.held_out :]}
    for name, part in parts.items():
        rows: list[dict[str, object]] = []
        for problem in part:
            read = lines_of(problem["answer"])
            if read is None:
                continue
            lines, answer = read
            made = [Spoiled((*map(sentence, lines), answer), len(lines) + 1)]
            kinds = rng.sample(KINDS, len(KINDS))
            tries = (spoiled(rng, problem["question"], lines, answer, kind) for kind in kinds)
            made += [one for one in tries if one is not None][: given.spoiled]
            for one in made:
                steps = dressed(rng, one.steps)
                labels = [float(n < one.first) for n in range(len(steps))]
                rows.append({"prompt": problem["question"], "steps": steps, "labels": labels})
        rng.shuffle(rows)
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        print(f"{name}: {len(rows)} solutions of {len(part)} problems")


if __name__ == "__main__":
    main()
