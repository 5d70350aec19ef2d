"""Final answers: what kind a question wants, found in a text, normalised, and compared by meaning."""

from __future__ import annotations

from reason_engine.answers.equality import Equality
from reason_engine.answers.find import normalise
from reason_engine.answers.kind import AnswerKind, AnswerSpec, infer
from reason_engine.answers.read import Reading, closed, find, read, revise

__all__ = ["AnswerKind", "AnswerSpec", "Equality", "Reading", "closed", "find", "infer", "normalise", "read", "revise"]
