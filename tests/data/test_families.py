"""Every family: what it teaches is true by exact arithmetic, the held-out puzzles never appear, seeds reproduce."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import islice, permutations

import pytest
from pydantic import ValidationError

from reason_engine.data import STEPS, Example, families
from reason_engine.data.mixture import Part, Stream, digest
from reason_engine.data.numbers import games, held_out, is_development
from reason_engine.recipes.arithmetic import APPLY, expression
from reason_engine.recipes.reading import SENTENCE, UNKNOWN
from reason_engine.recipes.words import word_problem

OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}
EQUATION = re.compile(r"^(?:Wrong: )?(\S+) ([-+*/]) (\S+) = (\S+?)(?: \(left: (.*)\))?$")
NUMBER = re.compile(r"\d+")


def drawn(name: str, count: int, seed: int = 0, **params: object) -> list[Example]:
    family, rng = families.get(name)(**params), random.Random(seed)
    return [family.example(rng) for _ in range(count)]


def learned(example: Example) -> str:
    """The answer without the ranges that teach nothing."""
    text = example.answer
    for start, stop in reversed(example.skip):
        text = text[:start] + text[stop:]
    return text


def check_equations(text: str) -> int:
    count = 0
    for row in text.splitlines():
        if found := EQUATION.match(row):
            left, op, right, value, _ = found.groups()
            assert OPERATORS[op](Fraction(left), Fraction(right)) == Fraction(value), row
            count += 1
    return count


def evaluate(text: str) -> Fraction:
    """Exact value of an expression, by a parser written for this test."""
    tokens = re.findall(r"\d+|[-+*/()]", text)

    def total() -> Fraction:
        value = product()
        while tokens and tokens[0] in "+-":
            value = OPERATORS[tokens.pop(0)](value, product())
        return value

    def product() -> Fraction:
        value = atom()
        while tokens and tokens[0] in "*/":
            value = OPERATORS[tokens.pop(0)](value, atom())
        return value

    def atom() -> Fraction:
        token = tokens.pop(0)
        if token == "(":
            value = total()
            assert tokens.pop(0) == ")"
            return value
        return Fraction(token)

    result = total()
    assert not tokens
    return result


def brute(numbers: tuple[Fraction, ...]) -> set[Fraction]:
    """All values that use each number once, negative ones on the way included."""
    if len(numbers) == 1:
        return {numbers[0]}
    found: set[Fraction] = set()
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
            values = {a + b, a - b, a * b} | ({a / b} if b else set())
            for value in values:
                found |= brute((*rest, value))
    return found


def puzzle(question: str) -> tuple[tuple[int, ...], int]:
    """Numbers and target of a question in any wording."""
    text = question.split("\n")[0]
    if "Input:" in text:
        body, target = text.split("Input:")[1], text
    else:
        body, target = re.split(r" and \+| to reach", text)[0], text
    goal = re.search(r"(?:make|obtain|reach) (\d+)", target)
    assert goal
    return tuple(map(int, NUMBER.findall(body))), int(goal[1])


def test_every_family_reproduces_by_seed_and_answers() -> None:
    named = {"arithmetic", "choice", "countdown", "outside", "reading", "repair", "value", "words"}
    assert set(families) >= named
    for name in families:
        first = drawn(name, 20, seed=3)
        assert first == drawn(name, 20, seed=3) != drawn(name, 20, seed=4)
        assert all(one.question and one.answer and one.family == name for one in first)


@pytest.mark.parametrize("name", ["words", "arithmetic", "choice", "repair", "countdown", "units"])
def test_learned_equations_are_true(name: str) -> None:
    assert sum(check_equations(learned(one)) for one in drawn(name, 600)) > 400


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("digits", [1, 2, 3])
def test_word_problems_agree_with_their_last_line(steps: int, digits: int) -> None:
    rng = random.Random(f"{steps}-{digits}")
    for _ in range(40):
        problem = word_problem(rng, steps, digits)
        assert problem.lines[-1].value == problem.answer >= 0
        assert problem.question.endswith("?")
        assert len(problem.chain) == steps and problem.chain[-1].value == problem.answer
        assert all(APPLY[one.op](one.left, one.right) == one.value for one in problem.chain)
        assert problem.rationale.splitlines()[-1] == f"Answer: {problem.answer}"
        assert len(problem.lines) >= steps - steps // 2  # neighbours may be taken together, never more than two


def test_one_word_problem_has_several_rationales() -> None:
    seen = {len(word_problem(random.Random(seed), 4, 3).lines) for seed in range(200)}
    assert {4, 5, 6} <= seen


@pytest.mark.parametrize("steps, digits", [(0, 2), (3, 0), (-1, 1)])
def test_word_problem_refuses_nothing_to_do(steps: int, digits: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        word_problem(random.Random(0), steps, digits)


def test_direct_and_stepwise_prompts() -> None:
    assert all(one.question.endswith(f"?\n{STEPS}") for one in drawn("words", 50))
    for one in drawn("words", 50, rationale=False):
        assert STEPS not in one.question
        assert re.fullmatch(r"Answer: \d+", one.answer)


@pytest.mark.parametrize("steps", [True, False])
def test_countdown_solutions_are_exact(steps: bool) -> None:
    wordings = set()
    for one in drawn("countdown", 800, steps=steps):
        numbers, target = puzzle(one.question)
        wordings.add(one.question.split()[0] + one.question.split()[1])
        rows = one.answer.splitlines()
        final = re.fullmatch(r"Answer: (.*) = (\d+)", rows[-1])
        assert final
        assert int(final[2]) == target == evaluate(final[1])
        assert sorted(map(int, NUMBER.findall(final[1]))) == sorted(numbers)
        state = sorted(map(Fraction, numbers))
        for row in rows[:-1]:
            found = EQUATION.match(row)
            assert found
            state.remove(Fraction(found[1]))
            state.remove(Fraction(found[3]))
            state = sorted([*state, Fraction(found[4])])
            assert [Fraction(word) for word in found[5].split()] == state
        assert (state == [target]) == steps
    assert wordings == {"Usethe", "Usenumbers", "Countdown:use"}


def test_value_labels_are_exact_and_balanced() -> None:
    yes = sizes = 0
    for one in drawn("value", 300):
        found = re.fullmatch(r"Can (.*) make (\d+)\?", one.question)
        assert found
        state = tuple(Fraction(word) for word in found[1].split())
        assert ("yes" if Fraction(found[2]) in brute(state) else "no") == one.answer, one.question
        yes += one.answer == "yes"
        sizes |= 1 << len(state)
    assert 115 <= yes <= 185
    assert sizes == 0b11110


def test_held_out_puzzles_never_appear() -> None:
    assert len(held_out()) == 300
    assert all(len(one) == 4 and list(one) == sorted(one) for one in held_out())
    some = next(iter(held_out()))
    assert all(tuple(sorted(order)) in held_out() for order in permutations(some))
    texts = [one for name in ("countdown", "value") for one in drawn(name, 2000, seed=5)]
    for one in texts:
        numbers = tuple(sorted(map(Fraction, re.findall(r"[\d/]+", _set_of(one.question)))))
        assert len(numbers) != 4 or (numbers not in held_out() and not is_development(numbers))
    allowed, kept = set(games(13)), set(games(13, True))
    assert not (allowed | kept) & held_out()
    assert not allowed & kept
    assert len(kept) > 50


def _set_of(question: str) -> str:
    if found := re.match(r"Can (.*) make", question):
        return found[1]
    return " ".join(map(str, puzzle(question)[0]))


def test_choice_names_the_letter_of_the_right_option() -> None:
    for one in drawn("choice", 300, rationale=1.0):
        letter = one.answer.splitlines()[-1].removeprefix("Answer: ")
        assert one.answer.splitlines()[-2] in one.question.splitlines()
        options = [row for row in one.question.splitlines() if re.match(r"[A-D]\) ", row)]
        assert len({row[3:] for row in options}) == 4
        assert one.answer.splitlines()[-2].startswith(f"{letter}) ")


def test_repair_skips_just_the_wrong_line_and_finds_the_right_one() -> None:
    corrected = sound = criticised = again = 0
    for one in drawn("repair", 900):
        if "\nWait." in one.answer:
            given, verdict = one.answer.split("\nWait. ")
            assert one.skip == ((0, len(given) + len("\nWait.")),)
            changed = verdict.splitlines()[-1] != given.splitlines()[-1]
            assert changed or verdict.startswith("Every line is right.") or "Line " in verdict
            check_equations(verdict)
            again += 1
        elif one.skip:
            ((start, stop),) = one.skip
            with pytest.raises(AssertionError):
                check_equations(one.answer[start:stop])
            assert one.answer[stop:].startswith("Wrong: ")
            corrected += 1
        elif one.answer.startswith("Every line is right."):
            given = one.question.split("Proposed solution:\n")[1]
            assert check_equations(given) and f"\n{one.answer.splitlines()[1]}\n" in given
            sound += 1
        else:
            place = int(NUMBER.findall(one.answer)[0])
            given = one.question.split("Proposed solution:\n")[1].splitlines()
            check_equations("\n".join(given[: place - 1]))
            assert given[place - 1] != one.answer.splitlines()[1]  # a true equation may be the wrong one
            criticised += 1
    assert min(corrected, sound, criticised, again) > 50


@pytest.mark.parametrize(
    "params, form",
    [
        ({}, r"\[(?P<place>\d)\] (?P<text>.*)\nAnswer: \d+"),
        ({"alike": 0.6, "after": True}, r"Found: (?P<text>.*) \[(?P<place>\d)\]\nAnswer: \d+"),
    ],
    ids=["number first", "number after"],
)
def test_reading_quotes_the_source_that_says_it_or_says_that_none_does(params: dict[str, object], form: str) -> None:
    quoted = unknown = 0
    for one in drawn("reading", 400, **params):
        sources = re.findall(r"^\[(\d)\] (.*)$", one.question, re.M)
        if one.answer == UNKNOWN:
            unknown += 1
        elif found := re.fullmatch(form, one.answer):
            assert found["text"] in dict(sources)[found["place"]]
            assert sum(found["text"] in other for _, other in sources) == 1
            assert one.answer.split("Answer: ")[1] in found["text"]
            quoted += 1
        else:
            assert re.fullmatch(r"Answer: \d+", one.answer)
    assert unknown > 40 and quoted > 200


def test_outside_questions_get_the_one_sentence() -> None:
    assert {one.answer for one in drawn("outside", 300)} == {SENTENCE}
    assert len({one.question for one in drawn("outside", 300)}) > 150


def test_expressions_are_written_as_they_are_evaluated() -> None:
    rng = random.Random(1)
    for _ in range(500):
        lines, text = expression(rng, rng.randint(1, 4), (1, 3))
        assert evaluate(text) == lines[-1].value


@pytest.mark.parametrize(
    "name, params",
    [
        ("words", {"stepz": (1, 2)}),
        ("value", {"game": 2}),
        ("countdown", {"highest": "many"}),
        ("outside", {"steps": -1}),
    ],
)
def test_families_refuse_wrong_params(name: str, params: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(params))):
        families.get(name)(**params)


def test_stream_goes_on_from_a_kept_state() -> None:
    parts = [Part(family=name, share=1) for name in families]
    stream, other = Stream(parts, 7), Stream(parts, 8)
    head = list(islice(stream, 500))
    assert any(one.history for one in head)
    kept = stream.state()
    tail = list(islice(stream, 300))
    other.restore(kept)
    assert list(islice(other, 300)) == tail
    assert digest(parts, 7) == digest(parts, 7) != digest(parts, 8)


@pytest.mark.parametrize(
    "part, said",
    [
        ({"family": "wrods", "share": 1}, "did you mean 'words'"),
        ({"family": "words", "share": 0}, "share"),
        ({"family": "words", "share": 1, "params": {"digit": 3}}, r"params\.digit"),
        ({"family": "words", "share": 1, "weight": 2}, "weight"),
    ],
)
def test_part_refuses(part: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Part.model_validate(part)
