"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights in 4 bits, each column's error made up for by those after it.

    min ‖WX − ŴX‖²,  column by column:  δ = −(w_q − quant(w_q)) / [H⁻¹]_qq · [H⁻¹]_q:,   H = 2XXᵀ

Done by gptqmodel, the maintained successor of auto-gptq, in AutoGPTQ's file format, in a process of its own. One scale
a `group` of inputs; embedding, norms and output matrix stay as they are. A smaller group costs size and saves accuracy.
Columns are worked off by their activations, largest first, but within groups, so that the file's order stays plain.

8 bits: vLLM has a kernel for them on GPUs only (Marlin), and the embedded engine none; `int8` is served everywhere.

The process of its own is this module run by itself, since gptqmodel writes to the terminal and keeps threads and
settings of the process. The request goes in as JSON on standard input; out come JSON lines of progress, and what the
library says in a log file, whose end is the message where it fails.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from reason_engine.compression import CompressionConfig, Served, compressors
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.matrices import check_matrices
from reason_engine.engines.open import has_gpu
from reason_engine.errors import MissingExtra, ReasonError, SetupError
from reason_engine.progress import OnProgress, silent


class GptqConfig(CompressionConfig):
    """`data` or `mixture` calibrates."""

    bits: Literal[4, 8] = 4
    group: Literal[32, 64, 128] = Field(128, description="Inputs that share a scale")
    damp: float = Field(0.05, gt=0, lt=1, description="Share of H's mean diagonal that is added to it")
    batch: int = Field(8, ge=1, description="Rows of a forward pass")

    @model_validator(mode="after")
    def text_is_named(self) -> GptqConfig:
        if not self.has_text:
            raise ValueError("gptq looks at activations: name data or a mixture to calibrate on")
        return self


@compressors.register("gptq")
class Gptq:
    """4-bit weights by GPTQ."""

    config: ClassVar[type[GptqConfig]] = GptqConfig
    summary: ClassVar[str] = "4-bit weights by GPTQ (8 bits for GPUs)"

    def check(self, config: GptqConfig, model: Path) -> list[str]:
        if config.bits == 8 and not has_gpu():
            raise SetupError(
                "bits: 8-bit GPTQ is served by vLLM on a GPU only, and there is none here; `reason compress int8` "
                "makes 8-bit weights that every engine serves"
            )
        found = check_matrices(model, config.group)
        require()
        return [found]

    def served(self, config: GptqConfig) -> Served:
        if config.bits == 8:
            return Served("no", "no", "yes, W8A16")
        return Served("yes, weights stay 4-bit", "yes", "yes, W4A16")

    def compress(self, config: GptqConfig, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Calibrate here, quantise in the process of its own."""
        rows = read_calibration(config, model)
        tell({"note": f"calibrated on {rows.source}"})
        grid = {"bits": config.bits, "group_size": config.group, "damp_percent": config.damp}
        quantize = {**grid, "desc_act": False, "act_group_aware": True, "sym": True}
        folders = {"model": str(model.absolute()), "out": str(out.absolute())}
        options = config.model_dump(include={"batch", "seed", "threads"})
        quantise({**folders, **options, "rows": rows.calibration, "quantize": quantize}, tell)
        return {"bits": config.bits, "group": config.group, "calibration": rows.source}


WORKER = "reason_engine.compression.quantize.gptq"


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


def quantise(request: Mapping[str, Any], tell: OnProgress) -> None:
    """Have it done by the process. Raises QuantiseError with what the library said last."""
    spare = max(1, (os.cpu_count() or 2) - 1)
    threads = str(request.get("threads") or os.environ.get("OMP_NUM_THREADS") or spare)
    # the library asks for two workers where two cores or fewer would give it one, and ends there
    environment = {
        **os.environ,
        "GPTQMODEL_CPU_WORKERS": os.environ.get("GPTQMODEL_CPU_WORKERS", "2"),
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-m", WORKER]
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with (
            log.open("wb") as errors,
            Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors, env=environment, cwd=place, text=True) as process,
        ):
            try:
                _exchange(process, json.dumps(request), tell)
            finally:
                process.kill()  # an interrupt ends the work too
        if process.returncode:
            raise QuantiseError(f"gptqmodel: {_last_message(log.read_text('utf-8', 'replace'))}")


def _exchange(process: Popen[str], request: str, tell: OnProgress) -> None:
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError):  # it ended at its start; its log says why
        process.stdin.write(request)
        process.stdin.close()
    for line in process.stdout:
        tell(json.loads(line))
    process.wait()


def _last_message(log: str) -> str:
    """The last line that says something; of a traceback, its error."""
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]", log)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (errors or [line for line in lines if line] or ["ended without a word"])[-1][:300]


class LayerProgress:
    """Hears from the library when a layer is done."""

    def __init__(self, total: int, tell: Any) -> None:
        self.total, self.tell = total, tell

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """A layer is quantised, and later packed."""
        if not submodule_finalized:
            self.tell({"stage": "quantise", "done": layer_idx + 1, "total": self.total})


def main() -> None:
    """The process: everything but progress goes to standard error, into the log."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)

    def tell(row: dict[str, Any]) -> None:
        out.write(json.dumps(row) + "\n")

    tell({"note": "gptqmodel starts: its import takes a while"})
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig  # pyright: ignore[reportMissingImports]

    torch.manual_seed(request["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # `pack_impl="cpu"`, the default, compiles an extension for minutes; the original packs a layer in a moment
    settings = {**request["quantize"], "device": device, "offload_to_disk": False, "pack_impl": "original"}
    model = GPTQModel.load(request["model"], QuantizeConfig(**settings))
    model.layer_callback = LayerProgress(model.model.config.num_hidden_layers, tell)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in request["rows"]]
    model.quantize(rows, batch_size=request["batch"])
    tell({"note": "packed; writing"})
    model.save(request["out"])


if __name__ == "__main__":
    main()
