"""Final answers: found in a text, normalised, and compared by meaning."""

from __future__ import annotations

from reason_engine.answers.equality import Equality
from reason_engine.answers.find import find, normalise

__all__ = ["Equality", "find", "normalise"]
