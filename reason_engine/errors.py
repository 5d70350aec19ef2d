"""Every error of the package, named for the boundary that failed.

ReasonError
├── RequestError (ValueError)      the caller's input; 400 unless said otherwise; names the field in `param`
│   ├── UnknownName                a strategy, verifier, task … that is not registered; carries the nearest name
│   ├── UnknownModel               404
│   ├── ContextLengthExceeded      the prompt does not fit the model
│   └── CapabilityMissing          the engine at hand lacks what the strategy needs
├── SetupError                     the operator's input: settings, files, extras; exit code 2
│   ├── MissingExtra               a package that an extra installs
│   └── ModelLoadError             a model path, checkpoint or tokenizer that cannot be used
├── EngineError                    the engine failed while it worked; 500
│   ├── EngineDead                 it will not come back by itself; 503
│   └── EngineBusy                 its queue is full; 429
├── VerifierError                  a verifier crashed, hung or returned nonsense; 500
├── StrategyError                  a strategy crashed; 500
└── BudgetExhausted                control flow inside a run; `solve` turns it into the best answer so far
"""

from __future__ import annotations

from typing import cast


class ReasonError(Exception):
    """Base of all errors that this package raises on purpose."""


class RequestError(ReasonError, ValueError):
    """The request cannot be served as written.

    `param` is the dotted name of the field at fault (`reasoning.n`), `code` a stable machine-readable word.
    """

    status = 400

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class UnknownName(RequestError):
    """A name that no registry entry has."""


class UnknownModel(RequestError):
    """A model or adapter that this server does not have."""

    status = 404


class ContextLengthExceeded(RequestError):
    """The rendered prompt leaves no room to generate."""


class CapabilityMissing(RequestError):
    """The engine lacks a capability that the request needs. The message says how to get it."""


class SetupError(ReasonError):
    """A setting, file or installation is wrong. One clear line; commands exit with 2."""


class MissingExtra(SetupError):
    """An optional package is not installed."""

    def __init__(self, package: str, install: str) -> None:
        super().__init__(f"{package} is not installed; install it with: {install}")
        self.package, self.install = package, install


class ModelLoadError(SetupError):
    """A checkpoint that does not exist, is corrupt, or is of a kind that is never loaded (pickle)."""


class EngineError(ReasonError):
    """The engine failed while generating or scoring."""


class EngineDead(EngineError):
    """The engine's process or thread has ended."""


class EngineBusy(EngineError):
    """The engine has no room for this request now."""


class VerifierError(ReasonError):
    """A verifier failed; it ends the path it scored, not the request."""


class StrategyError(ReasonError):
    """A strategy failed with an error of its own."""


class BudgetExhausted(ReasonError):
    """No tokens, samples or seconds are left. `reason` is the value of `stopped` that follows from it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def first_error(error: BaseException) -> BaseException:
    """The error that a group of errors is about: its first one that is not merely a spent budget, however deep; an
    error that is no group is itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast(BaseExceptionGroup[BaseException], error)
    found = [first_error(inner) for inner in group.exceptions]
    return next((one for one in found if not isinstance(one, BudgetExhausted)), found[0])
