"""The P2 law: found again in points made by it, from a file whose faults are named by line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reason_engine.compression.forecast import Goal, predict
from reason_engine.compression.law import Law, Point, append_points, fit, read_points
from reason_engine.errors import SetupError

TRUE = Law(NC=8.0, DC=900.0, E=0.05, alpha=0.3, beta=0.7, gamma=-1.2, delta=0.1)


def points(noise: float = 0.0, sizes: int = 3, rates: int = 3, checkpoints: int = 20) -> list[Point]:
    random = np.random.default_rng(1)
    return [
        Point(
            f"{N0}-{rho}", "width", N0, rho, 1.0, D, 1.0 + TRUE.excess(N0, rho, D) * math.exp(noise * random.normal())
        )
        for N0 in (1e5, 3e5, 9e5, 2.7e6)[:sizes]
        for rho in (0.2, 0.35, 0.5)[:rates]
        for D in (20_000 * k for k in range(1, checkpoints + 1))
    ]


def test_the_law_by_hand() -> None:
    # (1/0.5)^-1 = 0.5, (1/100)^0.5 = 0.1, 10/100^1 + 200/50^1 + 0.4 = 4.5
    law = Law(NC=10, DC=200, E=0.4, alpha=1, beta=1, gamma=-1, delta=0.5)
    assert law.excess(100, 0.5, 50) == pytest.approx(0.225)
    assert law.floor(100, 0.5) == pytest.approx(0.025)
    assert law.tokens(100, 0.5, 0.225) == pytest.approx(50)


def test_points_made_by_the_law_are_predicted() -> None:
    law = fit(points())
    for N0, rho, D in ((1e5, 0.2, 1e6), (3e6, 0.45, 3e5)):
        assert law.excess(N0, rho, D) == pytest.approx(TRUE.excess(N0, rho, D), rel=0.05)
    assert law.gamma == pytest.approx(TRUE.gamma, abs=0.05)


def test_unseen_points_are_judged_and_rivals_beside_them() -> None:
    found = predict(points(noise=0.02), None, [])
    assert (found.runs, found.points, found.dropped) == (9, 180, 0)
    assert found.checkpoints.points == 36 and found.whole_runs.points == 180
    for trust in (found.checkpoints, found.whole_runs):
        assert trust.error < 0.05 and trust.interval[0] <= trust.error <= trust.interval[1] <= trust.worst
        assert min(trust.rivals["constant"], trust.rivals["power law in D"]) > 2 * trust.error
    assert set(found.checkpoints.rivals) == {
        "constant", "power law in D", "P2 law led through the run", "last value of the run", "power law of the run",
    }  # fmt: skip


def test_a_run_off_the_law_is_led_through() -> None:
    off = [replace(p, L=p.L0 + 1.6 * p.excess) if p.run == "300000.0-0.35" else p for p in points()]
    one = Goal("300000.0-0.35", 3e5, 0.35, 1.0, tokens=5e5)
    found = predict(off, None, [one, replace(one, run="another")])
    own, other = (forecast.loss - 1.0 for forecast in found.forecasts if forecast.loss)
    assert own == pytest.approx(1.6 * TRUE.excess(3e5, 0.35, 5e5), rel=0.05)
    assert other < 0.85 * own
    assert found.checkpoints.rivals["P2 law led through the run"] < 0.5 * found.checkpoints.error


def test_the_unseen_fifth_is_not_fitted() -> None:
    spoiled = [replace(p, L=p.L + 5) if p.D > 16 * 20_000 else p for p in points()]
    found = predict(spoiled, None, [])
    assert found.checkpoints.error > 0.9  # a fit that had seen them would follow
    assert found.checkpoints.rivals["last value of the run"] > 0.9


def test_points_at_or_below_the_loss_before_are_counted() -> None:
    made = points()
    made[3] = replace(made[3], L=1.0)
    assert predict(made, None, []).dropped == 1


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (points(sizes=2), "runs of 2 sizes and 3 rates; the law needs at least 3 sizes"),
        (points(rates=1), "3 sizes and 1 rates"),
        (points(checkpoints=4), "has 4 checkpoints"),
        ([*points(), replace(points()[0], by="depth")], "--by: the points are of several kinds.*depth, width"),
    ],
)
def test_too_few(made: list[Point], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        predict(made, None, [])


def test_points_are_appended_and_read(tmp_path: Path) -> None:
    file, made = tmp_path / "a" / "points.jsonl", points()
    append_points(file, made[:2])
    append_points(file, made[2:4])
    assert read_points(file) == made[:4]
    with pytest.raises(SetupError, match="points: "):
        append_points(tmp_path, made)


GOOD = {"run": "r", "by": "width", "N0": 10, "rho": 0.5, "L0": 1, "D": 5, "L": 2}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", r"p.jsonl:2: not JSON"),
        ("3", r"p.jsonl:2: must be an object"),
        (json.dumps({**GOOD, "L": "x"}), r"p.jsonl:2: L: must be a number$"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "L0"}), r"p.jsonl:2: L0: must be a number, is missing"),
        (json.dumps({**GOOD, "L": math.nan}), r"p.jsonl:2: L: must be a number"),
        (json.dumps({**GOOD, "rho": 1}), r"p.jsonl:2: rho: must be above 0 and below 1, is 1"),
        (json.dumps({**GOOD, "D": 0}), r"p.jsonl:2: D: must be at least 1, is 0"),
        (json.dumps({**GOOD, "run": ""}), r"p.jsonl:2: run: must be a word"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "by"}), r"p.jsonl:2: by: must be a word, is missing"),
    ],
)
def test_broken_rows_are_named_by_line(tmp_path: Path, row: str, said: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + row + "\n")
    with pytest.raises(SetupError, match=said):
        read_points(file)


def test_the_command(tmp_path: Path, reason: Any) -> None:
    file = tmp_path / "points.jsonl"
    append_points(file, points())
    model = ("--size", "3e5", "--rate", "0.35", "--base-loss", "1.0")
    goal = 1.0 + TRUE.excess(3e5, 0.35, 1e6)
    ran = reason("plan", "prune", "--points", str(file), *model, "--target-loss", f"{goal}", "--json")
    assert ran.code == 0, ran.err
    (one,) = json.loads(ran.out)["forecasts"]
    assert one["tokens"] == pytest.approx(1e6, rel=0.25)
    ran = reason("plan", "prune", "--points", str(file), "--tokens", "500000")
    assert ran.out.count("after 500,000 tokens") == 9 and "whole runs, each left out once: P2 law" in ran.out
    low = 1.0 + 0.5 * TRUE.floor(9e5, 0.5)
    ran = reason("plan", "prune", "--points", str(file), "--target-loss", f"{low}")
    assert ran.code == 0 and "out of reach: at a rate of 0.5" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--points", "/no/such"), "--points: /no/such: "),
        (("--target-loss", "2", "--tokens", "3"), "exclude each other"),
        (("--size", "3e5"), "--size, --rate and --base-loss go together"),
        (("--size", "3e5", "--rate", "1.5", "--base-loss", "1"), "--rate: must be above 0 and below 1, is 1.5"),
        (("--size", "3e5", "--rate", "0.5", "--base-loss", "1", "--target-loss", "0.9"), "--target-loss: "),
        (("--size", "3e5", "--rate", "0.5", "--base-loss", "1", "--target-loss", "1.0001"), "out of reach"),
        (("--by", "depth"), "no points of 'depth'; there are: width"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, reason: Any, words: tuple[str, ...], said: str) -> None:
    file = tmp_path / "points.jsonl"
    append_points(file, points())
    ran = reason("plan", "prune", "--points", str(file), *words)
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1
