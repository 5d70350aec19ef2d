"""What a run writes on its way: the checkpoint that a killed run goes on from, and the log, one JSON line a step.

A checkpoint holds weights, optimisers, place in the data and random state, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.progress import OnProgress, silent
from reason_engine.training.common.distributed import Distributed

FREE = {
    "out", "tokens", "save_every", "keep_every", "log_every", "threads", "compile", "micro_tokens",
    "muon_rate", "adamw_rate", "clip", "tensorboard", "unservable", "epochs", "held_out",
}  # fmt: skip


class Weights:
    """The trained weights by name as the state of a model: frozen ones need not be kept."""

    def __init__(self, trained: list[tuple[str, Any]], processes: Distributed | None = None) -> None:
        self._trained, self._processes = dict(trained), processes

    def state_dict(self) -> dict[str, Any]:
        state = {name: parameter.detach() for name, parameter in self._trained.items()}
        return self._processes.whole(state) if self._processes else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._trained.items():
                value = state[name]
                parameter.copy_(self._processes.part(value, parameter) if self._processes else value)


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """A place in the data as it was before a batch was drawn."""

    saved: Any

    def state(self) -> Any:
        return self.saved


class Checkpoint:
    """One file, replaced atomically. Keys in FREE may change between the parts of a run; others need `--fresh`."""

    def __init__(self, folder: Path, config: Any, *, writes: bool = True) -> None:
        """`writes`: whether this process is the one that does."""
        self._file, self._writes = folder / "state.pt", writes
        fixed = config.model_dump(mode="json", exclude=FREE)
        self._key = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def save(self, model: Any, optimisers: list[Any], source: Any, step: int, tokens: int) -> None:
        """Write the state beside the old one, then put it in its place."""
        import torch

        fresh = self._file.with_suffix(".new")
        state = {
            "key": self._key,
            "model": model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
            "source": source.state(),
            "random": torch.get_rng_state(),
            "step": step,
            "tokens": tokens,
        }
        if not self._writes:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._file)
        except (OSError, RuntimeError) as error:  # torch's writer wraps the file's own error
            fresh.unlink(missing_ok=True)
            kept = "the one before it stays" if self._file.is_file() else "there is none before it"
            raise SetupError(
                f"{self._file}: the checkpoint of step {step} cannot be written; {kept}: {error}"
            ) from None

    def restore(self, model: Any, optimisers: list[Any], source: Any) -> tuple[int, int]:
        """Steps and tokens done; (0, 0) where there is no checkpoint. Raises SetupError if the config has changed."""
        import torch

        if not self._file.is_file():
            return 0, 0
        state = torch.load(self._file, weights_only=True)
        if state["key"] != self._key:
            raise SetupError(f"{self._file}: made with another config; use --fresh to begin anew")
        model.load_state_dict(state["model"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        source.restore(state["source"])
        torch.set_rng_state(state["random"])
        return state["step"], state["tokens"]

    def remove(self) -> None:
        """The run is finished; its model stands in the folder above."""
        self._file.unlink(missing_ok=True)
        self._file.with_suffix(".new").unlink(missing_ok=True)
        if self._file.parent.is_dir():
            self._file.parent.rmdir()


class Log:
    """Appends to a file and reports progress. Speed is over all tokens since this process began.

    `board`: a folder for TensorBoard's events. Raises MissingExtra where it is wanted and not installed.
    """

    def __init__(
        self, file: Path, total: int, done: int, tell: OnProgress = silent, board: Path | None = None
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._board = None if board is None else _board(board)
        self._lines, self._total, self._done, self._tell = JsonLines(file, escape=True), total, done, tell
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
        self._lines.append(row)
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
