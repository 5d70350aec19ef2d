"""A data folder with three puzzles and a few problems, and a plan over them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

PUZZLES = ("1 1 4 6", "4 5 6 10", "3 3 8 8")
FUNCTIONS = (
    {
        "prompt": 'from math import floor\n\n\ndef whole(x: float) -> int:\n    """The whole part of x."""\n',
        "entry_point": "whole",
        "test": "def check(candidate):\n    assert candidate(2.5) == 2\n    assert candidate(-0.5) == -1\n",
    },
    {
        "prompt": 'def twice(x):\n    return 2 * x\n\n\ndef four_times(x):\n    """Use twice()."""\n',
        "entry_point": "four_times",
        "test": "def check(candidate):\n    assert candidate(3) == twice(twice(3))\n",
    },
)
"""Two problems in the format of HumanEval."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("game24", "gsm8k", "svamp", "math500"):
        (root / name).mkdir(parents=True)
    rows = "\n".join(f"{rank},{puzzle},4.4" for rank, puzzle in enumerate(PUZZLES, 1))
    (root / "game24/24.csv").write_text(f"Rank,Puzzles,AMT (s)\n{rows}\n")
    gsm = [{"question": "2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}, {"question": "big?", "answer": "#### 1,234"}]
    (root / "gsm8k/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gsm))
    svamp = [{"Body": "Ann has 4 plums. ", "Question": "How many?", "Answer": 4.0}]
    (root / "svamp/SVAMP.json").write_text(json.dumps(svamp))
    math = [{"problem": "Half?", "answer": "\\frac{1}{2}"}]
    (root / "math500/test500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in math))
    (root / "humaneval").mkdir()
    with gzip.open(root / "humaneval/HumanEval.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in FUNCTIONS)
    own = [{"prompt": f"{n} and {n}?", "answer": str(2 * n)} for n in range(3)]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return root
