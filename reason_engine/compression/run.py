"""Running a compression method by name: a checkpoint in, a smaller checkpoint with manifest and report out.

The output folder is complete or absent: everything is made in a hidden folder beside it, which takes its name at the
end and is removed on any error.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reason_engine.compression import Method, compressors
from reason_engine.compression._folder import carry_over, whole
from reason_engine.compression.config import Compression
from reason_engine.engines._checkpoint import fingerprint, read_json, resolve, weight_files
from reason_engine.engines.open import NANO, bundled_model
from reason_engine.errors import SetupError
from reason_engine.training.callbacks import Tell, silent
from reason_engine.training.config import load

PACKAGES = ("reason-engine", "torch", "transformers", "numpy", "gptqmodel")


def prepare(method: str, file: Path | None, settings: Sequence[str] = ()) -> Any:
    """The validated config; raises UnknownName or SetupError. Imports nothing heavy."""
    return load(compressors.get(method, param="METHOD").config, file, settings)


def run(method: str, config: Any, model: str, out: Path, tell: Tell = silent) -> dict[str, Any]:
    """Compress; the report, which stands in `out` too. Raises SetupError on a wrong input, before anything is made."""
    from reason_engine.compression.report import measure

    base, compressor = _checked(model), compressors.get(method)()
    notes = compressor.check(config, base)
    served = compressor.served(config)
    notes += [f"served by: embedded: {served.embedded}"]
    notes += [f"served by: vLLM, CPU: {served.vllm_cpu}", f"served by: vLLM, GPU: {served.vllm_gpu}"]
    for note in notes:
        tell({"note": note})
    with whole(out) as made:
        figures = compressor.compress(config, base, made, tell)
        carry_over(base, made)
        report = measure(method, base, made, config, served, tell)
        _write(made / "manifest.json", _manifest(method, compressor, config, base, figures))
        _write(made / "report.json", report.to_json())
        (made / "report.md").write_text(report.to_markdown(), "utf-8")
    return report.to_json()


def _checked(model: str) -> Path:
    """The folder of a whole checkpoint in full precision. Raises ModelLoadError, SetupError."""
    nano = bundled_model() if model == NANO else None
    folder = nano or resolve(model)
    config = read_json(folder / "config.json")
    weight_files(folder)
    if isinstance(quantised := config.get("quantization_config"), dict):
        kind = quantised.get("quant_method", "?")
        raise SetupError(f"{folder}: is quantised already ({kind}); compress the model it was made from")
    return folder


def _manifest(
    method: str, compressor: Method, config: Compression, base: Path, figures: dict[str, Any]
) -> dict[str, Any]:
    return {
        "method": method,
        "config": config.model_dump(mode="json"),
        "base": fingerprint(base),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "figures": figures,
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
