"""What vLLM raises, as the package's own errors."""

from __future__ import annotations

from pathlib import Path

from reason_engine import errors
from reason_engine.engines.checkpoint.folder import first_line
from reason_engine.engines.vllm.release import vllm_module
from reason_engine.errors import ModelLoadError

_BUSY = ("QueueOverflowError", "MaxQueuedTokensError")  # by name: not in every release


def mapped_error(error: Exception) -> Exception:
    """An error of vLLM as the package's own. What it raises for a request is a ValueError or a VLLMClientError."""
    exceptions, dead = vllm_module("exceptions"), vllm_module("v1.engine.exceptions").EngineDeadError
    client = (ValueError, TypeError, exceptions.VLLMValidationError, exceptions.VLLMNotFoundError)
    if isinstance(error, errors.ReasonError):
        return error
    if isinstance(error, dead):
        return errors.EngineDead("vLLM's engine process has ended")
    if isinstance(error, client):
        return errors.RequestError(first_line(error), param=vars(error).get("parameter"))
    if type(error).__name__ in _BUSY:
        return errors.EngineBusy(first_line(error))
    return errors.EngineError(f"vLLM failed: {first_line(error.__cause__ or error)}")


def load_error(folder: Path, error: BaseException) -> ModelLoadError:
    """A failed start as one line."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    return ModelLoadError(f"{folder}: vLLM cannot load it: {next(lines, type(error).__name__)}")
