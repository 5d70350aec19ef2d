"""Lengths of rows in characters and tokens, and their distribution."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reason_engine.engines.open import bundled_model
from reason_engine.errors import SetupError

NONE = "none"


def token_counter(name: str | None) -> Callable[[str], int] | None:
    """Counts tokens by a checkpoint folder's `tokenizer.json`, by such a file, or by the bundled model's; `none`: not
    at all. Marks of a chat template are not counted. Raises SetupError naming what is wrong."""
    if name == NONE:
        return None
    path = bundled_model() if name is None else Path(name)
    if path is None:
        raise SetupError("--tokenizer: the bundled model is not in this installation; name one, or none")
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise SetupError(f"--tokenizer {name}: {path} is no file")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # a boundary: the library raises Exception itself on a file that is none
        raise SetupError(f"--tokenizer {name}: not a tokenizer: {error}") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


class Lengths:
    """Every length seen, four bytes each."""

    def __init__(self) -> None:
        self._seen = array("I")

    def add(self, length: int) -> None:
        self._seen.append(min(length, 2**32 - 1))

    def summary(self) -> dict[str, Any]:
        """Least, quartiles, 95th percentile, most, mean and sum; empty where nothing was seen."""
        ranked = sorted(self._seen)
        if not ranked:
            return {}
        marks = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
        found: dict[str, Any] = {name: ranked[round(at * (len(ranked) - 1))] for name, at in marks.items()}
        return {**found, "mean": round(sum(ranked) / len(ranked), 1), "sum": sum(ranked)}
