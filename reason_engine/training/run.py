"""Runs a training method by name: config in, checkpoint folder and manifest out.

`--launch replicated | fsdp2 | zero3` runs the same command in several processes, by `accelerate launch`. Each name is a
configuration in `launch/`; for several machines give the file to `accelerate launch` on each of them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from reason_engine.data.mixture import digest
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import MissingExtra, SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.config import load
from reason_engine.training.common.distributed import is_first, process_count
from reason_engine.training.common.recipe import EXTRA, Supervised
from reason_engine.training.watch.finished import begin_anew, check_same, is_finished
from reason_engine.training.watch.page import write_page
from reason_engine.training.watch.read import MANIFEST, read_run
from reason_engine.training.watch.trackers import check_installed, names_of

LAUNCH = Path(__file__).parent / "launch"
HAND_OVER = "for many GPUs let --hand-over verl write a job (grpo, ppo)"
PACKAGES = ("reason-engine", "torch", "transformers", "tokenizers", "numpy", "peft")


def prepare(method: str, file: Path, settings: Sequence[str] = ()) -> Any:
    """The validated config; raises UnknownName or SetupError. Imports nothing heavy."""
    return load(trainers.get(method, param="METHOD").config, file, settings)


def run(method: str, config: Any, *, fresh: bool = False, tell: OnProgress = silent) -> dict[str, Any]:
    """Train; a killed run goes on by itself unless `fresh`, and a finished one stays as it is. The manifest, which
    stands in `out` too. Raises SetupError where `out` holds a finished run of another config."""
    out: Path = config.out
    if process_count() > 1 and not isinstance(config, Supervised):
        raise SetupError(f"{method} draws from its own model, in one process; {HAND_OVER}")
    check_installed(names_of(config))
    if fresh and is_first():
        begin_anew(out)
    elif is_finished(out):
        done = check_same(out, _wanted(method, config))
        tell({"note": f"{out}: this run is finished, at step {done['metrics'].get('step')}; --fresh begins it anew"})
        return done
    metrics = trainers.get(method).train(config, out, tell)
    manifest = {
        **_wanted(method, config),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "metrics": metrics,
    }
    if is_first():
        (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        write_page(read_run(out))
    return manifest


def _wanted(method: str, config: BaseModel) -> dict[str, Any]:
    """What a run is told from others by."""
    settings = config.model_dump(mode="json")
    return {"method": method, "config": settings, "data": _data_hash(config), "base": _base(config)}


def _data_hash(config: BaseModel) -> str | None:
    """A hash of the file, or of the mixture's first examples; None of a config that names neither."""
    named = dict(config)
    if named.get("mixture"):
        return digest(named["mixture"], named["seed"])
    if isinstance(named.get("data"), Path):
        return hashlib.sha256(named["data"].read_bytes()).hexdigest()[:16]
    return None


def _base(config: BaseModel) -> str | None:
    """The hash of the weights that were begun with."""
    folder = dict(config).get("model")
    return ModelFolder(folder).fingerprint if isinstance(folder, Path) else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def launch_command(name: str, processes: int, config: object, words: Sequence[str]) -> list[str]:
    """The command that runs `reason` with these words in so many processes. Raises SetupError."""
    known = sorted(file.stem for file in LAUNCH.glob("*.yaml"))
    if name not in known:
        raise SetupError(f"--launch {name}: one of: {', '.join(known)}")
    if not isinstance(config, Supervised):
        raise SetupError(f"--launch {name}: methods that draw from their own model run in one process; {HAND_OVER}")
    for package in ("accelerate", *(["deepspeed"] if name == "zero3" else [])):
        if find_spec(package) is None:
            how = EXTRA if package == "accelerate" else "pip install deepspeed (--launch fsdp2 does the same without)"
            raise MissingExtra(package, how)
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / f"{name}.yaml"),
        "--num_processes", str(processes), "--module", "reason_engine.cli.main", *words,
    ]  # fmt: skip
