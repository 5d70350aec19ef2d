"""Measures a checkpoint in a process of its own: what it keeps resident, and how well it predicts some rows.

`measure_in_process` asks the process; the module run by itself is the process. It imports little, since memory is the
process's own (unique set size, and what it holds on a GPU) before the weights are read and after. The cross-entropies
of a row are summed over all its tokens but the first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import ReasonError


class MeasureError(ReasonError):
    """The process that measures a checkpoint ended early."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Bytes before and after loading; the precision that is computed in; (cross-entropy, tokens) of each row."""

    empty: int
    loaded: int
    dtype: str
    rows: tuple[tuple[float, int], ...]


def measure_in_process(
    folder: Path, rows: Sequence[Sequence[int]] = (), *, threads: int = 0, dtype: str = "auto"
) -> ProcessFigures:
    """Raises MeasureError."""
    request = {"folder": str(folder.absolute()), "rows": list(map(list, rows)), "threads": threads, "dtype": dtype}
    command, text = [sys.executable, "-m", __name__], json.dumps(request)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise MeasureError(f"{folder}: {last[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return ProcessFigures(found["empty"], found["loaded"], found["dtype"], tuple(map(tuple, found["rows"])))


def main() -> None:
    """Read the question, load, answer."""
    import torch

    from reason_engine.engines.chat import ChatFormat
    from reason_engine.engines.embedded.model.loading import load_decoder

    request: dict[str, Any] = json.load(sys.stdin)
    with torch.inference_mode():
        # what the first product loads belongs to an empty process
        torch.mm(torch.zeros(64, 64), torch.zeros(64, 64))
        _ = ChatFormat.load(Path(request["folder"]))  # an engine holds it beside the weights
        empty = _own_memory()
        decoder = load_decoder(Path(request["folder"]), threads=request["threads"], dtype=request["dtype"])
        loaded = _own_memory()
        rows = [cross_entropy(decoder, row) for row in request["rows"]]
    dtype = str(decoder.dtype).removeprefix("torch.")
    print(json.dumps({"empty": empty, "loaded": loaded, "dtype": dtype, "rows": rows}))


def cross_entropy(decoder: Any, ids: list[int]) -> tuple[float, int]:
    """Sum over the row's tokens but the first, and how many they are."""
    import torch

    from reason_engine.engines.embedded.prefill import advance, new_segment

    ((_, hidden_TH),) = advance(decoder, [new_segment(decoder, ids, keep=len(ids))], len(ids), None)
    loss = torch.nn.functional.cross_entropy(
        decoder.logits(hidden_TH[:-1]), torch.tensor(ids[1:], device=decoder.device), reduction="sum"
    )
    return loss.item(), len(ids) - 1


def _own_memory() -> int:
    import gc

    import psutil
    import torch

    gc.collect()
    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return psutil.Process().memory_full_info().uss + on_gpu


if __name__ == "__main__":
    main()
