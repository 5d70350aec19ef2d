"""Final answers: what kind a question wants, read from a text, normalised, and compared by meaning."""

from __future__ import annotations

from reason_engine.answers.equality import Equality
from reason_engine.answers.infer import infer
from reason_engine.answers.kind import AnswerKind, AnswerSpec
from reason_engine.answers.normalise import normalise
from reason_engine.answers.read import Reading, closed, find, read, revise
from reason_engine.answers.values.structured import canonical_json

__all__ = [
    "AnswerKind",
    "AnswerSpec",
    "Equality",
    "Reading",
    "canonical_json",
    "closed",
    "find",
    "infer",
    "normalise",
    "read",
    "revise",
]
