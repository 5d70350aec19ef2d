"""What a training of all weights changed, as a LoRA adapter: the nearest matrix of low rank to each difference.

    python docs/recipes/nano/adapter.py BASE TUNED OUT [--rank 16]

    W' − W ≈ B A,   B = U_r √S_r,   A = √S_r V_rᵀ        of the singular value decomposition, the r largest values

(Eckart and Young 1936: no matrix of that rank is nearer in the Frobenius norm.) What changed outside the matrices of
the layers (embeddings, norms) is left out. Prints the share of the squared change that the adapter keeps; measure what
that does to the answers.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

MATRIX = re.compile(r"model\.layers\.\d+\.(?:self_attn|mlp)\.(\w+_proj)\.weight")


def main() -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, as PEFT does."""
    options = argparse.ArgumentParser(description="Extract a LoRA adapter from two checkpoints.")
    options.add_argument("base", type=Path)
    options.add_argument("tuned", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--rank", type=int, default=16)
    given = options.parse_args()
    before, after = (load_file(path / "model.safetensors") for path in (given.base, given.tuned))
    tensors: dict[str, torch.Tensor] = {}
    kept = changed = 0.0
    names: set[str] = set()
    for name, weight in before.items():
        change = after[name].float() - weight.float()
        changed += change.square().sum().item()
        if not (found := MATRIX.fullmatch(name)):
            continue
        names.add(found[1])
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        kept += values[: given.rank].square().sum().item()
        root = values[: given.rank].sqrt()
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        low, high = root[:, None] * right[: given.rank], left[:, : given.rank] * root
        tensors[f"{stem}.lora_A.weight"] = low.contiguous().bfloat16()
        tensors[f"{stem}.lora_B.weight"] = high.contiguous().bfloat16()
    given.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, given.out / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": given.rank, "lora_alpha": given.rank,
              "target_modules": sorted(names), "bias": "none"}  # fmt: skip
    (given.out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    print(f"{kept / changed:.1%} of the squared change kept")


if __name__ == "__main__":
    main()
