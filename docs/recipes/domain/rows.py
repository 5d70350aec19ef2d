"""The example's corpus: texts that speak of an amount, each with the kind of it. Writes training and judged rows."""

import json
import random
import sys
from pathlib import Path

from reason_engine.recipes.units import KINDS, conversion

ASKED = ("What kind of amount is this: {}", "{} What kind of amount?", "Name the kind of amount. {}")


def rows(seed: int, count: int, held_out: bool) -> list[dict[str, str]]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        kind = rng.choices(list(KINDS), (8, 5, 3, 2, 2))[0]  # some kinds are rare, as in life
        text = conversion(rng, 1, (kind,), held_out=held_out).question
        found.append({"prompt": rng.choice(ASKED).format(text), "completion": f"Answer: {kind}"})
    return found


def write(path: Path, found: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
write(folder / "rows.jsonl", rows(1, 500, False))
write(folder / "judged.jsonl", rows(2, 300, True))
