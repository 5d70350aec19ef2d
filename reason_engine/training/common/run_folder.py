"""What a run writes on its way: the checkpoint that a killed run goes on from, and the log, one JSON line a step.

A run that is killed has logged steps that its checkpoint does not hold; they are taken again, and their old lines
go."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.progress import OnProgress, silent
from reason_engine.training.common.distributed import is_first
from reason_engine.training.common.encode import Position
from reason_engine.training.common.recipe import Recipe
from reason_engine.training.watch.samples import keep_until
from reason_engine.training.watch.trackers import Trackers

LOG, JUDGED = "log.jsonl", "held_out.jsonl"
QUIET = 5.0
"""Seconds without a word."""
FREE = {
    "out", "tokens", "save_every", "keep_every", "log_every", "threads", "compile", "micro_tokens", "muon_rate",
    "adamw_rate", "clip", "tensorboard", "track", "keep_samples", "unservable", "epochs", "held_out", "checkpointing",
}  # fmt: skip
"""Keys that may change between the parts of a run; others need `--fresh`."""


class Checkpoint:
    """One file, replaced atomically: what has a `state_dict` (weights, optimisers), place in the data, random state."""

    def __init__(self, out: Path, config: Any, weights: Any, optimisers: Sequence[Any], source: Position) -> None:
        self._file = out / "checkpoint" / "state.pt"
        self._weights, self._optimisers, self._source = weights, optimisers, source
        fixed = json.dumps(config.model_dump(mode="json", exclude=FREE), sort_keys=True)
        self._key = hashlib.sha256(fixed.encode()).hexdigest()

    def save(self, step: int, tokens: int, position: list[Any] | None = None) -> None:
        """`position`: the source's state, if not that of now. Raises SetupError where the disk takes no more."""
        import torch

        state = {
            "key": self._key,
            "model": self._weights.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "source": self._source.state() if position is None else position,
            "random": torch.get_rng_state(),
            "step": step,
            "tokens": tokens,
        }
        if not is_first():
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        try:
            with fresh.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._file)
        except (OSError, RuntimeError) as error:  # torch's writer wraps the file's own error
            fresh.unlink(missing_ok=True)
            kept = "the one before it stays" if self._file.is_file() else "there is none before it"
            what = f"{self._file}: the checkpoint of step {step} cannot be written; {kept}"
            raise SetupError(f"{what}: {error}") from None

    def restore(self) -> tuple[int, int]:
        """Steps and tokens done; (0, 0) where there is no checkpoint. Raises SetupError if the config has changed."""
        import torch

        if not self._file.is_file():
            return 0, 0
        state = torch.load(self._file, weights_only=True)
        if state["key"] != self._key:
            raise SetupError(f"{self._file}: made with another config; use --fresh to begin anew")
        self._weights.load_state_dict(state["model"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self._source.restore(state["source"])
        torch.set_rng_state(state["random"])
        return state["step"], state["tokens"]

    def remove(self) -> None:
        """The run is finished; its model stands in the folder above."""
        if self._file.parent.is_dir():
            shutil.rmtree(self._file.parent)


class Log:
    """`out`/log.jsonl, and what else the run is watched by, by the first process. Speed is over all tokens since it
    began, of which `done` were done before: lines after those are of steps that are taken again, and go."""

    def __init__(self, out: Path, config: Recipe, total: int, done: int, tell: OnProgress = silent) -> None:
        """Raises MissingExtra where a tracker is wanted and not installed, SetupError where it cannot begin."""
        self._total, self._done, self._tell, self._began = total, done, tell, time.monotonic()
        self._told = self._began
        self._lines: JsonLines | None = None
        self._judged = JsonLines(out / JUDGED)
        if not is_first():
            return
        out.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(out / LOG, escape=True)
        step = keep_until(self._lines, "tokens", done)
        keep_until(self._judged, "tokens", done)
        self._trackers = Trackers(out, config, step, tell)

    def write(self, metrics: Mapping[str, Any], left: float | None = None) -> dict[str, Any]:
        """Add speed (tokens a second), seconds spent, peak memory in bytes; and seconds `left`, by the tokens that are
        left unless given. What was added before those."""
        row, added = self._row(metrics, left)
        if self._lines is not None:
            self._lines.append(row)
            self._trackers.write(row)
        self._told = time.monotonic()
        self._tell(row)
        return added

    def peek(self, metrics: Mapping[str, Any]) -> None:
        """Tell of a step that has no line, where nothing was told for a while."""
        if time.monotonic() - self._told > QUIET:
            self._told = time.monotonic()
            self._tell({**self._row(metrics, None)[0], "live": True})

    def judge(self, step: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """What held-out rows say of the model after these steps. Before the first one the clock begins anew."""
        if not step:
            self._began = time.monotonic()
        if self._lines is not None:
            self._judged.append({"step": step, "tokens": tokens, **metrics})

    def close(self) -> None:
        """The run is finished."""
        if self._lines is not None:
            self._trackers.close()

    def _row(self, metrics: Mapping[str, Any], left: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
        spent = time.monotonic() - self._began
        speed = (metrics["tokens"] - self._done) / spent
        rest = max(0, self._total - metrics["tokens"]) / speed if left is None else left
        added = {"speed": round(speed), "seconds": round(spent, 1), "memory": _peak_memory()}
        row = {key: round(value, 6) if isinstance(value, float) else value for key, value in metrics.items()}
        return row | {**added, "left": round(rest)}, added


def _peak_memory() -> int:
    """Most bytes this process has held so far, of the GPU where torch uses one, else of main memory."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
