"""How far a long run is, as rows: `{"stage", "done", "total"}`, a training step's metrics, or `{"note"}`.

A row goes to whoever listens; `reporter` writes it as a JSON line, or as a bar on a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

OnProgress = Callable[[Mapping[str, Any]], None]


def silent(_: Mapping[str, Any]) -> None:
    """Listens to nothing."""


def reporter(out: TextIO, as_json: bool) -> OnProgress:
    """JSON lines, or one line written over; a note is a line of its own. Stages are drawn on a terminal only."""
    drawn, terminal = False, out.isatty()

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal drawn
        if as_json:
            out.write(json.dumps(row, ensure_ascii="done" not in row and "note" not in row) + "\n")
        elif "note" in row:
            out.write(f"\n{row['note']}\n" if drawn else f"{row['note']}\n")
            drawn = False
        elif "stage" not in row:
            share = row["tokens"] / (row["tokens"] + row["speed"] * row["left"])
            rate = f"loss {row['loss']:.4f}  {row['speed']:,} tokens/s  {row['left']} s left"
            out.write(f"\r{_bar(int(24 * share))} {100 * share:5.1f} %  {rate} ")
            drawn = True
        elif terminal:
            done, total = row["done"], max(1, row["total"])
            out.write(f"\r{_bar(24 * done // total)} {done}/{total}  {row['stage']}\x1b[K")
            drawn = done < total
            if not drawn:
                out.write("\n")
        out.flush()

    return tell


def staged(tell: OnProgress, stage: str, total: int) -> OnProgress:
    """A training's rows as a stage of so many tokens; notes as they are."""

    def told(row: Mapping[str, Any]) -> None:
        if "note" in row:
            tell(row)
            return
        rest = {name: row[name] for name in ("loss", "speed", "left") if name in row}
        tell({"stage": stage, "done": min(row["tokens"], total), "total": total, **rest})

    return told


def _bar(filled: int) -> str:
    return "█" * filled + "·" * (24 - filled)
