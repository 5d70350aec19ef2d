"""Plain text of this package's generators, to learn (30,000 rows) and to judge by (400): `python rows.py FOLDER`."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

from reason_engine.data.mixture import Part, Stream

MIXTURE = (
    Part(family="words", share=5, params={"digits": [1, 2], "steps": [1, 3]}),
    Part(family="arithmetic", share=3),
    Part(family="countdown", share=2),
)


def main(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", 30_000, 5), ("held", 400, 6)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for one in islice(Stream(MIXTURE, seed), count):
                file.write(json.dumps({"text": f"{one.question}\n{one.answer}"}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
