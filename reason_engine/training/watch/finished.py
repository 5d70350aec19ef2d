"""Whether a folder holds the finished run of a config: then nothing is left to do, and hours of work are not redone.

A run is finished when its manifest is there and its checkpoint is gone. It is another run when method, data, base or
any key differs that decides what comes out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.training.common.run_folder import JUDGED, LOG
from reason_engine.training.watch.read import MANIFEST
from reason_engine.training.watch.samples import SAMPLES
from reason_engine.training.watch.trackers import TRACKED

BESIDE = frozenset(
    {"out", "save_every", "keep_every", "log_every", "threads", "tensorboard", "track", "keep_samples", "unservable"}
)
"""Keys that change nothing of what comes out."""


def is_finished(out: Path) -> bool:
    """Whether the folder holds a finished run at all."""
    return (out / MANIFEST).is_file() and (out / LOG).is_file() and not (out / "checkpoint").is_dir()


def check_same(out: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the finished run in `out`, which is the one that is wanted by `method`, `config`, `data` and
    `base`. Raises SetupError where it is another, or cannot be read."""
    try:
        found = json.loads((out / MANIFEST).read_text("utf-8"))
        different = _difference(found, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SetupError(f"{out / MANIFEST}: {type(error).__name__}: {error}; --fresh begins the run anew") from None
    if different:
        raise SetupError(
            f"out: {out} holds a finished run with another {different}; name another folder, or --fresh to begin anew"
        )
    return found


def begin_anew(out: Path) -> None:
    """Forget the run in `out`; a model that stands there stays until it is written over."""
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    for name in (LOG, JUDGED, SAMPLES, TRACKED, MANIFEST):
        (out / name).unlink(missing_ok=True)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first thing that differs, in words."""
    if found["method"] != wanted["method"]:
        return f"method ({found['method']})"
    config: Mapping[str, Any] = found["config"]
    for key, value in wanted["config"].items():
        if (
            key not in BESIDE and key in config and config[key] != value
        ):  # a key that is newer than the run is no change
            return f"{key} ({config[key]})"
    for key, name in (("data", "content of data"), ("base", "base model")):
        if found.get(key) != wanted[key]:
            return name
    return None
