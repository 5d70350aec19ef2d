"""Labels of nano's word problems: the first wrong line as the problem's operations tell it."""

from __future__ import annotations

import random
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from reason_engine.recipes.repair import spoiled
from reason_engine.recipes.words import word_problem

FILE = Path(__file__).parents[2] / "docs" / "recipes" / "nano" / "chains.py"


@pytest.fixture(scope="module")
def chains() -> Any:
    spec = spec_from_file_location("chains", FILE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    sys.modules["chains"] = module
    spec.loader.exec_module(module)
    return module


def test_every_true_rationale_is_right_and_every_beginning_of_it(chains: Any) -> None:
    rng = random.Random(7)
    for _ in range(300):
        problem = word_problem(rng, rng.randint(1, 8), rng.randint(1, 3))
        rows = problem.rationale.split("\n")
        assert chains.first_wrong(rows, problem.chain) is None
        short = [*rows[:-2], f"Answer: {problem.lines[-2].value if len(rows) > 2 else -1}"]
        assert chains.first_wrong(short, problem.chain) == len(short) - 1  # an answer that comes too soon


def test_a_spoiled_line_is_found_where_it_stands(chains: Any) -> None:
    rng, found = random.Random(8), 0
    for _ in range(300):
        problem = word_problem(rng, rng.randint(2, 8), rng.randint(1, 2))
        place, given = spoiled(rng, problem, 0.0)
        rows = [*map(str, given), f"Answer: {given[-1].value}"]
        found += chains.first_wrong(rows, problem.chain) == place
    assert found >= 297  # a number from elsewhere may be one that the problem asks for
