"""A checkpoint looked at in a process of its own: what it keeps resident, and how well it foretells some rows.

`look` asks the process; the module run by itself is the process. Memory is the process's own (unique set size, and what
it holds on a GPU) before the weights are read and after; the cross-entropies of a row are summed over all its tokens
but the first.
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


class LookError(ReasonError):
    """The process that looks at a checkpoint ended early."""


@dataclass(frozen=True, slots=True)
class Look:
    """Bytes before and after loading; the precision that is computed in; (cross-entropy, tokens) of each row."""

    empty: int
    loaded: int
    dtype: str
    rows: tuple[tuple[float, int], ...]


def look(folder: Path, rows: Sequence[Sequence[int]] = (), *, threads: int = 0, dtype: str = "auto") -> Look:
    """Raises LookError."""
    asked = {"folder": str(folder.absolute()), "rows": [list(row) for row in rows]}
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps({**asked, "threads": threads, "dtype": dtype}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise LookError(f"{folder}: {last[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Look(found["empty"], found["loaded"], found["dtype"], tuple(map(tuple, found["rows"])))


def main() -> None:
    """Read the question, load, answer."""
    import torch

    from reason_engine.engines.embedded.model.decoder import load_decoder

    asked: dict[str, Any] = json.load(sys.stdin)
    with torch.inference_mode():
        torch.mm(
            torch.zeros(64, 64), torch.zeros(64, 64)
        )  # what the first product loads belongs to an empty process
        empty = _own()
        decoder = load_decoder(Path(asked["folder"]), threads=asked["threads"], dtype=asked["dtype"])
        loaded = _own()
        rows = [cross_entropy(decoder, row) for row in asked["rows"]]
    print(
        json.dumps(
            {
                "empty": empty,
                "loaded": loaded,
                "dtype": str(decoder.dtype).removeprefix("torch."),
                "rows": rows,
            }
        )
    )


def cross_entropy(decoder: Any, ids: list[int]) -> tuple[float, int]:
    """Sum over the row's tokens but the first, and how many they are."""
    import torch

    from reason_engine.engines.embedded.prefill import advance, new_segment

    ((_, hidden_TH),) = advance(decoder, [new_segment(decoder, ids, None, 0, keep=len(ids))], len(ids), None)
    loss = torch.nn.functional.cross_entropy(
        decoder.logits(hidden_TH[:-1]), torch.tensor(ids[1:], device=decoder.device), reduction="sum"
    )
    return loss.item(), len(ids) - 1


def _own() -> int:
    import gc

    import psutil
    import torch

    gc.collect()
    on_gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return psutil.Process().memory_full_info().uss + on_gpu


if __name__ == "__main__":
    main()
