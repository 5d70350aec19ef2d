"""The log of a training run: one JSON line a step, which whoever listens gets too."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reason_engine.errors import MissingExtra
from reason_engine.progress import OnProgress, silent


class Log:
    """Appends to a file and tells. Speed is over all tokens since this process began.

    `board`: a folder for TensorBoard's events. Raises MissingExtra where it is wanted and not installed.
    """

    def __init__(
        self, file: Path, total: int, done: int, tell: OnProgress = silent, board: Path | None = None
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._board = None if board is None else _board(board)
        self._file, self._total, self._done, self._tell = file, total, done, tell
        self._began = time.monotonic()

    def write(self, metrics: Mapping[str, Any], left: float | None = None) -> dict[str, Any]:
        """Add speed (tokens a second), seconds spent, peak memory in bytes, and seconds `left`, by the tokens that are
        left unless given. What was added, less what is left."""
        spent = time.monotonic() - self._began
        speed = (metrics["tokens"] - self._done) / spent
        added = {"speed": round(speed), "seconds": round(spent, 1), "memory": peak_memory()}
        row = {
            **{key: round(value, 6) if isinstance(value, float) else value for key, value in metrics.items()},
            **added,
            "left": round(max(0, self._total - metrics["tokens"]) / speed if left is None else left),
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name in row.keys() - {"step", "tokens", "left", "seconds"}:
                self._board.add_scalar(name, row[name], row["step"])
            self._board.flush()
        self._tell(row)
        return added


def peak_memory() -> int:
    """Most bytes this process has held so far, of the GPU where torch uses one, else of main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtra("tensorboard", "pip install tensorboard") from None
    return SummaryWriter(str(folder))
