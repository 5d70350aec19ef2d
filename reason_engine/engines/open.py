"""Opens the engine that the settings ask for: the one place that serve, solve, chat and eval share.

`auto` is the remote endpoint where an upstream is named, vLLM where it is installed, a GPU is there and the model is
no GGUF file, else the embedded engine. Paths are checked here, so that a wrong one fails before anything heavy loads.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from reason_engine.contracts import Engine
from reason_engine.engines import engines
from reason_engine.engines.chat import Parsers
from reason_engine.engines.checkpoint.checkpoint import find_checkpoint, is_gguf
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.checkpoint.gguf.file import stem_of
from reason_engine.errors import ModelLoadError, SetupError, UnknownName
from reason_engine.profile import Profile, read_profile
from reason_engine.settings import Settings

if TYPE_CHECKING:
    from reason_engine.engines.openai.engine import OpenAIEngine

NANO = "reason-nano"


def open_engine(settings: Settings, *, inline: bool = True) -> Engine:
    """The engine, not started yet. `inline`: the embedded engine in this process, not in a child of its own.

    Raises SetupError: an unknown engine or parser, a missing extra, a model that cannot be used, a drafting method it
    lacks.
    """
    parsers_of(settings).check()
    kind = engine_name(settings)
    if kind == "openai":
        engine = open_remote(settings)
    elif kind == "embedded":
        engine = _embedded(settings, model_path(settings), inline)
    else:
        engine = _vllm(settings, model_path(settings)) if kind == "vllm" else engines.get(kind)()
    offered = ("none", *engine.caps.drafting)
    if settings.draft.partition(":")[0] not in offered:
        raise SetupError(f"--draft {settings.draft}: this engine drafts by one of: {', '.join(sorted(set(offered)))}")
    return engine


def open_remote(settings: Settings) -> OpenAIEngine:
    """The remote engine, not started yet. Raises SetupError for addresses that are none."""
    from reason_engine.engines.openai.config import OpenAIConfig
    from reason_engine.engines.openai.engine import OpenAIEngine

    if not settings.upstream_url:
        raise SetupError("the openai engine needs the endpoint's address: --upstream-url http://host/v1")
    first, *others = settings.upstream_url
    tokenizer = settings.upstream_tokenizer
    asked = {"base_url": first, "replicas": tuple(others), "model": settings.model, "context": settings.context}
    asked |= {"api_key": settings.upstream_key, "tokenizer": str(tokenizer) if tokenizer else None}
    asked |= {"connect_timeout": settings.upstream_connect_seconds, "timeout": settings.upstream_idle_seconds}
    try:
        config = OpenAIConfig.model_validate(asked | {"prefill": settings.upstream_prefill})
    except ValidationError as error:
        raise SetupError(f"upstream_url: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return OpenAIEngine(
        config, rewards=_rewards(settings), reward_keys=settings.reward_keys, parsers=parsers_of(settings)
    )


def engine_name(settings: Settings) -> str:
    """The engine that is asked for; what `auto` means here. Raises SetupError for an unknown name."""
    if settings.engine != "auto":
        try:
            engines.get(settings.engine)
        except UnknownName as error:
            raise SetupError(f"engine: {error}") from None
        return settings.engine
    if settings.upstream_url:
        return "openai"
    folder = settings.model is None or not is_gguf(settings.model)
    return "vllm" if folder and has_gpu() and find_spec("vllm") else "embedded"


def parsers_of(settings: Settings) -> Parsers:
    """What the operator named of the chat format."""
    return Parsers(settings.reasoning_parser, settings.tool_parser)


def process_environment(name: str) -> dict[str, str]:
    """Variables with which this process must be started anew for that engine's full speed; empty: it may go on."""
    from reason_engine.engines.vllm.release import preload_environment

    return preload_environment() if name == "vllm" else {}


def model_path(settings: Settings) -> Path:
    """The checked checkpoint folder or GGUF file; the bundled model where none is named. Raises ModelLoadError."""
    if settings.model not in (None, NANO):
        return find_checkpoint(settings.model).check().path
    if (folder := bundled_model()) is None:
        raise ModelLoadError("the bundled model is not in this installation; name one")
    return ModelFolder(folder).check().path


def profile_of(settings: Settings) -> Profile:
    """How the model wants to be asked: its `reason.json`, or general prompts."""
    return Profile() if engine_name(settings) in ("openai", "scripted") else read_profile(model_path(settings))


def served_name(settings: Settings) -> str:
    """The name under which clients ask for the model."""
    if settings.served_name or settings.model is None:
        return settings.served_name or NANO
    if is_gguf(settings.model):
        return stem_of(Path(settings.model.rpartition(":")[2]).name)
    return Path(settings.model).name if Path(settings.model).is_dir() else settings.model


def bundled_model() -> Path | None:
    """The folder of reason-nano; None where the installation lacks it."""
    folder = Path(__file__).parent.parent / "models" / "nano"
    return folder if (folder / "config.json").is_file() else None


def has_gpu() -> bool:
    """Whether the system shows an accelerator that vLLM can use; asks the kernel, not torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    devices = ("/dev/nvidia0", "/proc/driver/nvidia/gpus", "/dev/kfd", "/dev/dxg")
    return any(Path(device).exists() for device in devices)


def _rewards(settings: Settings) -> dict[str, str]:
    """Those the settings name; an endpoint that embeds for documents is one more, by its URL."""
    url = settings.knowledge_model or ""
    plain = {url: f"embed+{url}"} if url.startswith(("http://", "https://")) else {}
    return {**plain, **settings.reward_models}


def _embedded(settings: Settings, model: Path, inline: bool) -> Engine:
    from reason_engine.engines.embedded.front import Embedded

    draft = settings.draft if settings.draft in ("sam", "ngram") else "none"
    return Embedded(
        model, inline=inline, name=served_name(settings), context=settings.context or 0, dtype=settings.dtype,
        weights=settings.weights, device=settings.device, threads=settings.threads or 0, max_rows=settings.max_rows,
        draft=draft, rewards=_rewards(settings), reward_keys=settings.reward_keys, parsers=parsers_of(settings),
    )  # fmt: skip


def _vllm(settings: Settings, folder: Path) -> Engine:
    if not folder.is_dir():
        raise SetupError(f"{folder}: vLLM does not read GGUF files here; serve it with --engine embedded")
    from reason_engine.engines.vllm.drafts import speculation
    from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine

    known = {key: value for key, value in settings.vllm.items() if key in VllmConfig.model_fields}
    extra = {key: value for key, value in settings.vllm.items() if key not in known}
    own = {
        "model": str(folder), "name": served_name(settings), "dtype": settings.dtype, "max_model_len": settings.context,
        "enable_lora": bool(settings.adapters or settings.adapters_dir),
        "speculative_config": speculation(settings.draft), "extra": extra,
    }  # fmt: skip
    try:
        made = VllmConfig.model_validate({**own, **known})
        keys = settings.reward_keys
        return VllmEngine(made, rewards=_rewards(settings), reward_keys=keys, parsers=parsers_of(settings))
    except ValidationError as error:
        first = error.errors()[0]
        raise SetupError(f"vllm.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
