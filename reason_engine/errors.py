"""Every error of the package, named for the boundary that failed; numbers are statuses of HTTP."""

from __future__ import annotations

from typing import cast


class ReasonError(Exception):
    """Base of all errors that this package raises on purpose."""


class RequestError(ReasonError, ValueError):
    """The caller's input: the request cannot be served as written; 400 unless said otherwise.

    `param` is the dotted name of the field at fault (`reasoning.n`), `code` a stable machine-readable word.
    """

    status = 400

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_request") -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


class UnknownName(RequestError):
    """A strategy, verifier, task … that is not registered; carries the nearest name."""


class UnknownModel(RequestError):
    """A model or adapter that this server does not have; 404."""

    status = 404


class ContextLengthExceeded(RequestError):
    """The rendered prompt leaves no room to generate."""


class CapabilityMissing(RequestError):
    """The engine lacks a capability that the request needs. The message says how to get it."""


class SetupError(ReasonError):
    """The operator's input: a setting, file or installation is wrong. One clear line; commands exit with 2."""


class MissingExtra(SetupError):
    """A package that an extra installs is missing."""

    def __init__(self, package: str, install: str) -> None:
        super().__init__(f"{package} is not installed; install it with: {install}")
        self.package, self.install = package, install


class ModelLoadError(SetupError):
    """A checkpoint that does not exist, is corrupt, or is of a kind that is never loaded (pickle)."""


class EngineError(ReasonError):
    """The engine failed while generating or scoring; 500."""


class EngineDead(EngineError):
    """The engine's process or thread has ended and will not come back by itself; 503."""


class EngineBusy(EngineError):
    """The engine's queue is full; 429. `pause`: seconds after which it said to come again, where it did."""

    def __init__(self, message: str = "", *, pause: float | None = None) -> None:
        super().__init__(message)
        self.pause = pause


class VerifierError(ReasonError):
    """A verifier crashed, hung or returned nonsense; it ends the path it scored, not the request. 500 if all."""


class StrategyError(ReasonError):
    """A strategy failed with an error of its own; 500."""


class BudgetExhausted(ReasonError):
    """Control flow inside a run: no tokens, samples or seconds are left; `solve` turns it into the best answer so far.

    `reason` is the value of `stopped` that follows from it.
    """

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
