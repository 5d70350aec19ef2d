"""Running a training method by name: config in, checkpoint folder and manifest out."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reason_engine.engines._checkpoint import fingerprint
from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training._recipe import Supervised
from reason_engine.training._world import is_first, size_of_world
from reason_engine.training.callbacks import Tell, silent
from reason_engine.training.config import load

PACKAGES = ("reason-engine", "torch", "transformers", "tokenizers", "numpy", "peft")


def prepare(method: str, file: Path, settings: Sequence[str] = ()) -> Any:
    """The validated config; raises UnknownName or SetupError. Imports nothing heavy."""
    return load(trainers.get(method, param="METHOD").config, file, settings)


def run(method: str, config: Any, *, fresh: bool = False, tell: Tell = silent) -> dict[str, Any]:
    """Train; a killed run goes on by itself unless `fresh`. The manifest, which stands in `out` too."""
    from reason_engine.training._source import data_hash

    out: Path = config.out
    if size_of_world() > 1 and not isinstance(config, Supervised):
        raise SetupError(
            f"{method} draws from its own model, in one process; for many GPUs let --hand-over verl write "
            "a job (grpo, ppo)"
        )
    if fresh and is_first():
        shutil.rmtree(out / "checkpoint", ignore_errors=True)
        (out / "log.jsonl").unlink(missing_ok=True)
    metrics = trainers.get(method)().train(config, out, tell)
    manifest = {
        "method": method,
        "config": config.model_dump(mode="json"),
        "data": data_hash(config),
        "base": _base(config),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "metrics": metrics,
    }
    if is_first():
        (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return manifest


def _base(config: BaseModel) -> str | None:
    """The hash of the weights that were begun with."""
    folder = dict(config).get("model")
    return fingerprint(folder) if isinstance(folder, Path) else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
