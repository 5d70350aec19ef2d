"""Running a compression method by name: a checkpoint in, a smaller checkpoint with manifest and report out.

The output folder is complete or absent: everything is made in a hidden folder beside it, which takes its name at the
end and is removed on any error.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reason_engine.compression import CompressionConfig, compressors
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.open import NANO, bundled_model
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training.common.config import load

PACKAGES = ("reason-engine", "torch", "transformers", "numpy", "gptqmodel")


def prepare(method: str, file: Path | None, settings: Sequence[str] = ()) -> Any:
    """The validated config; raises UnknownName or SetupError. Imports nothing heavy."""
    return load(compressors.get(method, param="METHOD").config, file, settings)


def run(method: str, config: Any, model: str, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
    """Compress; the report, which stands in `out` too. Raises SetupError on a wrong input, before anything is made."""
    from reason_engine.compression.report import measure

    base, compressor = _checked(model), compressors.get(method)()
    notes = compressor.check(config, base.path)
    served = compressor.served(config)
    servers = zip(("embedded", "vLLM, CPU", "vLLM, GPU"), asdict(served).values(), strict=True)
    for note in (*notes, *map("served by: {0[0]}: {0[1]}".format, servers)):
        tell({"note": note})
    with ModelFolder(out).create() as made:
        figures = compressor.compress(config, base.path, made.path, tell)
        made.carry_over(base)
        report = measure(method, base.path, made.path, config, served, tell)
        made.write_json("manifest.json", _manifest(method, config, base, figures))
        made.write_json("report.json", asdict(report))
        (made.path / "report.md").write_text(report.to_markdown(), "utf-8")
    return asdict(report)


def _checked(model: str) -> ModelFolder:
    """A whole checkpoint in full precision. Raises ModelLoadError, SetupError."""
    nano = bundled_model() if model == NANO else None
    folder = (ModelFolder(nano) if nano else ModelFolder.find(model)).check()
    if (quantised := folder.quantization) is not None:
        kind = quantised.get("quant_method", "?")
        raise SetupError(f"{folder.path}: is quantised already ({kind}); compress the model it was made from")
    return folder


def _manifest(method: str, config: CompressionConfig, base: ModelFolder, figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": method,
        "config": config.model_dump(mode="json"),
        "base": base.fingerprint,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "figures": figures,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
