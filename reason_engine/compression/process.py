"""Measures a checkpoint in a process of its own: what it keeps resident, and how well it predicts some rows.

`measure_in_process` asks the process; the module run by itself is the process. It imports little, since memory is the
process's own (unique set size, and what it holds on a GPU) before the weights are read and after. The cross-entropies
of a row are summed over all its tokens but the first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
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
    folder: Path,
    rows: Sequence[Sequence[int]] = (),
    *,
    threads: int = 0,
    dtype: str = "auto",
    on_row: Callable[[int], None] = lambda done: None,
) -> ProcessFigures:
    """`on_row` hears how many rows are done. Raises MeasureError."""
    request = {"folder": str(folder.absolute()), "rows": list(map(list, rows)), "threads": threads, "dtype": dtype}
    found, seen = dict[str, Any](), list[tuple[float, int]]()
    with (
        tempfile.TemporaryFile("w+") as said,
        Popen([sys.executable, "-m", __name__], stdin=PIPE, stdout=PIPE, stderr=said, text=True) as process,
    ):
        assert process.stdin and process.stdout
        try:
            with suppress(BrokenPipeError):  # it ended at its start; what it said tells why
                process.stdin.write(json.dumps(request))
                process.stdin.close()
            for line in process.stdout:
                told = json.loads(line)
                found |= told
                if "row" in told:
                    seen.append(tuple(told["row"]))
                    on_row(len(seen))
            process.wait()
        finally:
            process.kill()  # an interrupt ends the work too
        if process.returncode:
            said.seek(0)
            last = said.read().strip().splitlines() or [f"ended with {process.returncode}"]
            raise MeasureError(f"{folder}: {last[-1]}")
    return ProcessFigures(found["empty"], found["loaded"], found["dtype"], tuple(seen))


def main() -> None:
    """Read the question, load, answer: the memory, then a line a row."""
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
        loaded, dtype = _own_memory(), str(decoder.dtype).removeprefix("torch.")
        print(json.dumps({"empty": empty, "loaded": loaded, "dtype": dtype}), flush=True)
        for row in request["rows"]:
            print(json.dumps({"row": cross_entropy(decoder, row)}), flush=True)


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
