"""The process in which gptqmodel quantises: `python -m reason_engine.compression.quantize.gptqmodel_worker` < job."""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class Layers:
    """Hears from the library when a layer is done."""

    def __init__(self, total: int, tell: Any) -> None:
        self.total, self.tell = total, tell

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        """A layer is quantised, and later packed."""
        if not submodule_finalized:
            self.tell({"stage": "quantise", "done": layer_idx + 1, "total": self.total})


def main() -> None:
    """Everything but progress goes to standard error, into the log."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)

    def tell(row: dict[str, Any]) -> None:
        out.write(json.dumps(row) + "\n")

    tell({"note": "gptqmodel starts: its import takes a while"})
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig  # pyright: ignore[reportMissingImports]

    torch.manual_seed(job["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # `pack_impl="cpu"`, the default, compiles an extension for minutes; the original packs a layer in a moment
    settings = {**job["quantize"], "device": device, "offload_to_disk": False, "pack_impl": "original"}
    model = GPTQModel.load(job["model"], QuantizeConfig(**settings))
    model.layer_callback = Layers(model.model.config.num_hidden_layers, tell)
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in job["rows"]]
    model.quantize(rows, batch_size=job["batch"])
    tell({"note": "packed; writing"})
    model.save(job["out"])


if __name__ == "__main__":
    main()
