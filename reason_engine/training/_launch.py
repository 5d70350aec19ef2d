"""`--launch replicated | fsdp2 | zero3`: the same command again in several processes, by `accelerate launch`.

Each name is a configuration in `launch/`; for several machines give the file to `accelerate launch` on each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from reason_engine.errors import MissingExtra, SetupError
from reason_engine.training._peft import EXTRA
from reason_engine.training._recipe import Supervised

FOLDER = Path(__file__).parent / "launch"


def launch_command(name: str, processes: int, config: object, words: Sequence[str]) -> list[str]:
    """The command that runs `reason` with these words in so many processes. Raises SetupError."""
    known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if name not in known:
        raise SetupError(f"--launch {name}: one of: {', '.join(known)}")
    if not isinstance(config, Supervised):
        raise SetupError(
            f"--launch {name}: methods that draw from their own model run in one process; for many GPUs let "
            "--hand-over verl write a job (grpo, ppo)"
        )
    for package in ("accelerate", *(["deepspeed"] if name == "zero3" else [])):
        if find_spec(package) is None:
            how = (
                EXTRA
                if package == "accelerate"
                else "pip install deepspeed (--launch fsdp2 does the same without)"
            )
            raise MissingExtra(package, how)
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / f"{name}.yaml"),
        "--num_processes", str(processes), "--module", "reason_engine.cli.main", *words,
    ]  # fmt: skip
