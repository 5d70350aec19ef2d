"""Running a compression method by name: a checkpoint in, a smaller checkpoint with manifest and report out.

The output folder is complete or absent: everything is made in a hidden folder beside it, which takes its name at the
end and is removed on any error.

A checkpoint folder that is complete or absent, and what is carried over into it from the one before.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reason_engine.compression import Method, compressors
from reason_engine.compression.config import Compression
from reason_engine.engines.checkpoint.folder import fingerprint, read_json, resolve, weight_files
from reason_engine.engines.open import NANO, bundled_model
from reason_engine.errors import SetupError
from reason_engine.profile import FILE
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


CARRIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that takes its name where the block ends well, and is removed where it does not.

    Raises SetupError where `out` holds something, and where the disk takes no more.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SetupError(f"{out}: exists; name a folder that does not, or remove it")
    made = out.absolute().with_name(f".{out.absolute().name}.new")
    shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
    try:
        made.mkdir(parents=True)
        yield made
        if out.is_dir():
            out.rmdir()
        os.replace(made, out)
    except (OSError, SafetensorError) as error:
        raise SetupError(f"{out}: cannot be written, and nothing was: {error}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def carry_over(base: Path, made: Path) -> None:
    """Tokenizer, template and profile of the model before, where the method wrote none; the profile without the policy
    of `auto`, which was calibrated for other weights."""
    for name in CARRIED:
        if (base / name).is_file() and not (made / name).exists():
            shutil.copyfile(base / name, made / name)
    if (base / FILE).is_file():
        profile = json.loads((base / FILE).read_text("utf-8"))
        profile.pop("auto", None)
        (made / FILE).write_text(json.dumps(profile, indent=2, ensure_ascii=False) + "\n", "utf-8")
