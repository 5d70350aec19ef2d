"""What a killed run goes on from: weights, optimisers, place in the data, random state; whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.training.common.distributed import World

FREE = {
    "out", "tokens", "save_every", "keep_every", "log_every", "threads", "compile", "micro_tokens",
    "muon_rate", "adamw_rate", "clip", "tensorboard", "unservable", "epochs", "held_out",
}  # fmt: skip


class Weights:
    """The trained weights by name as the state of a model: frozen ones need not be kept."""

    def __init__(self, trained: list[tuple[str, Any]], world: World | None = None) -> None:
        self._trained, self._world = dict(trained), world

    def state_dict(self) -> dict[str, Any]:
        state = {name: parameter.detach() for name, parameter in self._trained.items()}
        return self._world.whole(state) if self._world else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._trained.items():
                value = state[name]
                parameter.copy_(self._world.part(value, parameter) if self._world else value)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the data that was noted down."""

    noted: Any

    def state(self) -> Any:
        return self.noted


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
