"""Where a run's figures go besides its log: TensorBoard, Weights & Biases, MLflow, each with its own library.

A run that goes on after a kill goes on there too: its name there stands in `tracked.json`. Projects, servers and keys
are what those libraries read from the environment (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI). A library that
cannot begin ends the run before its first step; one that fails later is left out from there on, with a note.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.progress import OnProgress

Name = Literal["tensorboard", "wandb", "mlflow"]
TRACKED = "tracked.json"
NO_CURVE = frozenset({"step", "tokens", "left", "seconds"})


class Tracker(Protocol):
    """`write` takes a line of the log."""

    def write(self, row: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


def names_of(config: Any) -> tuple[Name, ...]:
    """Those that a config asks for; `tensorboard: true` is short for one."""
    return tuple(dict.fromkeys((*(("tensorboard",) if config.tensorboard else ()), *config.track)))


def check_installed(names: Sequence[Name]) -> None:
    """Raises MissingExtra."""
    for name in names:
        if find_spec(name) is None:
            raise MissingExtra(name, f"pip install {name}")


class Trackers:
    """All of a run. Closed at its end."""

    def __init__(self, out: Path, config: Any, step: int, tell: OnProgress) -> None:
        """`step`: done before. Raises MissingExtra, SetupError."""
        self._tell, self._open = tell, dict[str, Tracker]()
        known = _known(out)
        for name in names_of(config):
            try:
                self._open[name] = TRACKERS[name](out, config.model_dump(mode="json"), step, known)
            except ImportError:
                raise MissingExtra(name, f"pip install {name}") from None
            except Exception as error:  # the boundary to a library that reaches a server
                raise SetupError(f"track: {name} cannot begin: {_line(error)}") from None
        if known:
            (out / TRACKED).write_text(json.dumps(known) + "\n", "utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """A line of the log."""
        for name, tracker in [*self._open.items()]:
            try:
                tracker.write(row)
            except Exception as error:  # the boundary to a library that reaches a server
                del self._open[name]
                self._tell({"note": f"{name} fails and is left out from step {row['step']} on: {_line(error)}"})

    def close(self) -> None:
        """Hand over what is still on its way."""
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:  # the boundary to a library that reaches a server
                self._tell({"note": f"{name} did not end: {_line(error)}"})
        self._open = {}


class TensorBoard:
    """Events in `out`/tensorboard; steps that are taken again after a kill replace what was there."""

    def __init__(self, out: Path, settings: Mapping[str, Any], step: int, known: dict[str, str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        del settings, known
        self._writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, row: Mapping[str, Any]) -> None:
        for name in sorted(row.keys() - NO_CURVE):
            self._writer.add_scalar(name, row[name], row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project WANDB_PROJECT, or `reason`."""

    def __init__(self, out: Path, settings: Mapping[str, Any], step: int, known: dict[str, str]) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        project = os.environ.get("WANDB_PROJECT", "reason")
        again = {"id": known["wandb"], "resume": "allow"} if step and "wandb" in known else {}
        self._run: Any = wandb.init(project=project, name=out.name, dir=str(out), config=dict(settings), **again)
        known["wandb"] = self._run.id

    def write(self, row: Mapping[str, Any]) -> None:
        self._run.log({name: row[name] for name in row if name != "step"}, step=row["step"])

    def close(self) -> None:
        self._run.finish()


class MlFlow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME."""

    def __init__(self, out: Path, settings: Mapping[str, Any], step: int, known: dict[str, str]) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self._mlflow: Any = mlflow
        begun = known.get("mlflow") if step else None
        run = mlflow.start_run(run_id=begun, run_name=None if begun else out.name)
        if begun is None:
            mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})
        known["mlflow"] = run.info.run_id

    def write(self, row: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics({name: row[name] for name in row.keys() - NO_CURVE}, step=row["step"])

    def close(self) -> None:
        self._mlflow.end_run()


TRACKERS: Mapping[Name, Callable[[Path, Mapping[str, Any], int, dict[str, str]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MlFlow,
}


def _known(out: Path) -> dict[str, str]:
    try:
        return dict(json.loads((out / TRACKED).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
