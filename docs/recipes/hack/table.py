"""What runs were paid and how much of it was true, step by step.

python docs/recipes/hack/table.py .runs/hack-length .runs/hack-composite
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

folders = [Path(name) for name in sys.argv[1:]]
runs = [[json.loads(row) for row in (folder / "log.jsonl").read_text("utf-8").splitlines()] for folder in folders]
print("| step | " + " | ".join(f"{folder.name}: reward, right, tokens" for folder in folders) + " |")
print("|---:" * (len(runs) + 1) + "|")
for rows in zip(*runs, strict=False):
    cells = [f"{row['reward']:.2f}, {row['reward_exact']:.2f}, {row['length']:.0f}" for row in rows]
    print(f"| {rows[0]['step']} | " + " | ".join(cells) + " |")
