"""gptqmodel in a process of its own: it writes to the terminal, keeps threads and settings of the process.

The job goes in as JSON on standard input; out come JSON lines of progress, and what the library says in a log file,
whose end is the message where it fails.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reason_engine.errors import MissingExtra, ReasonError
from reason_engine.training.callbacks import Tell

WORKER = "reason_engine.compression._gptqmodel_worker"


class QuantiseError(ReasonError):
    """The library failed while it quantised."""


def require() -> str:
    """The version that is installed. Raises MissingExtra with the line that installs it."""
    try:
        return version("gptqmodel")
    except PackageNotFoundError:
        # it is built here, against the torch that is there
        line = 'pip install --no-build-isolation "reason-engine[compress]"'
        raise MissingExtra("gptqmodel", line) from None


def quantise(job: Mapping[str, Any], tell: Tell) -> None:
    """Run the job. Raises QuantiseError with what the library said last."""
    threads = str(
        job.get("threads") or os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 2) - 1)
    )
    # the library asks for two workers where two cores or fewer would give it one, and ends there
    environment = {
        **os.environ,
        "GPTQMODEL_CPU_WORKERS": os.environ.get("GPTQMODEL_CPU_WORKERS", "2"),
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with (
            log.open("wb") as said,
            subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                cwd=place,
                text=True,
            ) as process,
        ):
            try:
                _talk(process, json.dumps(job), tell)
            finally:
                process.kill()  # an interrupt ends the work too
        if process.returncode:
            raise QuantiseError(f"gptqmodel: {_last(log.read_text('utf-8', 'replace'))}")


def _talk(process: subprocess.Popen[str], job: str, tell: Tell) -> None:
    assert process.stdin and process.stdout
    try:
        process.stdin.write(job)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended at its start; its log says why
    for line in process.stdout:
        tell(json.loads(line))
    process.wait()


def _last(log: str) -> str:
    """The last line that says something; of a traceback, its error."""
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]", log)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors or [line for line in lines if line] or ["ended without a word"])[-1][:300]
