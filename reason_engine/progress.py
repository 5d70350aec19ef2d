"""How far a long run is, as rows: `{"stage", "done", "total"}`, a training step's metrics, or `{"note"}`.

A row goes to whoever listens; `reporter` writes it as a JSON line, or as a bar on a terminal. A step's row that is
`live` is for a bar alone: it stands in no log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TextIO

CLEAR = "\x1b[K"
OnProgress = Callable[[Mapping[str, Any]], None]


def silent(_: Mapping[str, Any]) -> None:
    """Listens to nothing."""


def reporter(out: TextIO, as_json: bool) -> OnProgress:
    """JSON lines, or one line written over; a note is a line of its own. Stages are drawn on a terminal only."""
    drawn, terminal = False, out.isatty()

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal drawn
        if as_json:
            if row.get("live"):
                return
            out.write(json.dumps(row, ensure_ascii="done" not in row and "note" not in row) + "\n")
        elif "note" in row:
            out.write(f"\n{row['note']}\n" if drawn else f"{row['note']}\n")
            drawn = False
        elif "stage" not in row:
            share = row["tokens"] / max(1, row["tokens"] + row["speed"] * row["left"])
            out.write(f"\r{_bar(int(24 * share))} {100 * share:5.1f} %  {_step(row)}{CLEAR if terminal else ' '}")
            drawn = True
        elif terminal:
            done, total = row["done"], max(1, row["total"])
            out.write(f"\r{_bar(24 * done // total)} {done}/{total}  {row['stage']}{CLEAR}")
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


def duration(seconds: float) -> str:
    """In the two largest units, as `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _step(row: Mapping[str, Any]) -> str:
    """What matters of a training's step: reward and length of answers where it has them, and the time that is left."""
    said = [f"step {row['step']}"] if "step" in row else []
    said += [f"reward {row['reward']:.3f}"] if "reward" in row else []
    said += [f"length {row['length']:.0f}"] if "length" in row else []
    said += [f"loss {row['loss']:.4f}", f"{row['speed']:,} tokens/s", f"{duration(row['left'])} left"]
    return "  ".join(said)


def _bar(filled: int) -> str:
    return "█" * filled + "·" * (24 - filled)
