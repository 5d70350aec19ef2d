"""How far a compression is: `{"stage", "done", "total"}` or `{"note"}`, as JSON lines or a bar on a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from reason_engine.training.callbacks import Tell


def reporter(out: TextIO, as_json: bool) -> Tell:
    """JSON lines, or one line a stage that is written over; where `out` is no terminal, notes only."""
    drawn, terminal = False, out.isatty()

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal drawn
        if as_json:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
        elif "note" in row:
            out.write(f"\n{row['note']}\n" if drawn else f"{row['note']}\n")
            drawn = False
        elif terminal:
            done, total = row["done"], max(1, row["total"])
            bar = "█" * (24 * done // total)
            out.write(f"\r{bar:·<24} {done}/{total}  {row['stage']}\x1b[K")
            drawn = done < total
            if not drawn:
                out.write("\n")
        out.flush()

    return tell


def staged(tell: Tell, stage: str, total: int) -> Tell:
    """What a training tells as a stage of so many tokens; notes as they are."""

    def told(row: Mapping[str, Any]) -> None:
        if "note" in row:
            tell(row)
            return
        rest = {name: row[name] for name in ("loss", "speed", "left") if name in row}
        tell({"stage": stage, "done": min(row["tokens"], total), "total": total, **rest})

    return told
