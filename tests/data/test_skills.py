"""The longer forms of three families, which say on the way what their answers follow from: checks by rows, choices
option by option, sentences before the number of their source."""

from __future__ import annotations

import random
import re

import pytest

from reason_engine.recipes.arithmetic import APPLY
from reason_engine.recipes.reading import fact, neighbour
from reason_engine.recipes.repair import SOUND
from tests.data.test_families import drawn

EQUATION = re.compile(r"^(?:Wrong: )?(\d+) ([-+*/]) (\d+) = (\d+)$")
ROW = re.compile(r"(\d+): (\d+ [-+*/] \d+)(?: = (\d+); (\d+))?( wrong)?")


def check_equations(text: str) -> int:
    found = [match for row in text.splitlines() if (match := EQUATION.match(row))]
    for left, op, right, value in (match.groups() for match in found):
        assert APPLY[op](int(left), int(right)) == int(value)
        assert op != "/" or int(left) % int(right) == 0
    return len(found)


def test_choice_goes_through_the_options_up_to_the_right_one() -> None:
    for one in drawn("choice", 300, rationale=1.0, through=True):
        rows = one.answer.splitlines()
        letter = rows[-1].removeprefix("Answer: ")
        options = [row for row in one.question.splitlines() if re.match(r"[A-D]\) ", row)]
        assert len({row[3:] for row in options}) == 4
        said = [row for row in rows if row in options]
        assert said == options[: len(said)] and said[-1].startswith(f"{letter}) ")
        assert rows[-2 - len(said)].endswith(f"= {said[-1][3:]}")


def check_rows(given: str, check: str) -> str:
    """Rows judge the given lines one by one, up to the first wrong one, which is wrong indeed; what is said then."""
    lines, rows = given.splitlines(), check.splitlines()
    for place, text in enumerate(lines):
        if text.startswith("Answer: "):
            if rows[place] == f"{place + 1}: Answer wrong":
                return "\n".join(rows[place + 1 :])
            return "\n".join(rows[place:])
        found = ROW.fullmatch(rows[place])
        assert found and found[1] == str(place + 1) and text.startswith(f"{found[2]} = ")
        if found[3]:
            assert check_equations(f"{found[2]} = {found[3]}") and text.endswith(f"= {found[4]}")
            assert bool(found[5]) == (found[3] != found[4])
        if found[5]:
            after = "\n".join(rows[place + 1 :])
            assert found[3] or not after.startswith(f"{found[2]} = ")
            return after
    raise AssertionError("a solution without an answer")


def test_repair_works_each_line_out_again_before_it_judges_it() -> None:
    corrected = sound = criticised = again = early = 0
    for one in drawn("repair", 900, rows=True):
        if "\nWait.\n" in one.answer:
            given, verdict = one.answer.split("\nWait.\n")
            assert one.skip == ((0, len(given) + len("\nWait.\n")),)
            again += 1
        elif one.skip:
            ((start, stop),) = one.skip
            with pytest.raises(AssertionError):
                check_equations(one.answer[start:stop])
            assert one.answer[stop:].startswith("Wrong: ")
            corrected += 1
            continue
        else:
            given = one.question.split("Proposed solution:\n")[1].removesuffix("\nCheck this solution.")
            verdict = one.answer
        after = check_rows(given, verdict)
        answer = given.splitlines()[-1]
        if after.startswith(SOUND):
            assert after == f"{SOUND}\n{answer}" and check_equations(given)
            sound += 1
        else:
            assert " wrong\n" in verdict and check_equations(after)
            criticised += after.splitlines()[-1] != answer
            early += ": Answer wrong" in verdict
    assert min(corrected, sound, criticised, again) > 50 and early > 5


def test_neighbours_are_told_apart_by_a_name_or_by_their_kind() -> None:
    rng = random.Random(2)
    kinds = names = 0
    for _ in range(300):
        asked = fact(rng)
        other = neighbour(rng, asked)
        assert other.question != asked.question
        kinds += other.form != asked.form and other.words["name"] == asked.words["name"]
        names += other.form == asked.form
    assert kinds > 30 and names > 150
