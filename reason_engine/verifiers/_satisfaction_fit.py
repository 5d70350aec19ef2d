"""Fits and keeps the weights of `satisfaction`: JSON lines of feedback in, a safetensors file out.

Minimises  sum_i log(1 + exp(-y_i (w x_i + b))) + L2/2 |w|²  over rows with y = 1 (content) or -1, by Newton's method in
the space the rows span (w = X' a), which is exact and small: feedback comes by the hundreds, features by the thousands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reason_engine.errors import SetupError
from reason_engine.verifiers._ngrams import SIZES, vector

if TYPE_CHECKING:
    import numpy as np

WIDTH = 4096
PENALTY = 0.05
ROUNDS = 50
MOST = 5_000
"""Rows that are fitted to, the newest (last): the system has their number squared of entries."""
GOOD = {"good": True, "bad": False, "up": True, "down": False, "positive": True, "negative": False}


@dataclass(frozen=True)
class Fitted:
    """`weights` over hashed features and sizes, `bias`."""

    weights: np.ndarray
    bias: float

    def content(self, question: str, answer: str) -> float:
        """P(the user is content)."""
        import numpy as np

        x = vector(question, answer, len(self.weights) - SIZES)
        return float(1 / (1 + np.exp(-np.clip(x @ self.weights + self.bias, -500, 500))))


def fit_file(rows: Path, out: Path) -> dict[str, float]:
    """Fit to a JSON-lines file of {question, answer, rating} and write `out`; returns what was read.

    A rating is true or false, a word such as `up`, or a number: above 0 is content, and 4 and 5 are in a file whose
    numbers go beyond 1, which are stars. Raises SetupError naming the line at fault, or where all ratings are alike.
    """
    read = list(_read(rows))
    stars = any(rating > 1 for _, _, rating in read)
    found = [(question, answer, rating >= 4 if stars else rating > 0) for question, answer, rating in read]
    save(fit(found), out)
    return {"rows": len(found), "content": sum(good for _, _, good in found)}


def fit(rows: list[tuple[str, str, bool]], width: int = WIDTH) -> Fitted:
    """The weights for these (question, answer, whether the user was content). Raises SetupError."""
    import numpy as np

    rows = rows[-MOST:]
    if len({good for _, _, good in rows}) < 2:
        raise SetupError("feedback of both kinds is needed, content and not")
    x = np.stack([vector(question, answer, width) for question, answer, _ in rows])
    y = np.array([1.0 if good else 0.0 for _, _, good in rows])
    kernel = x @ x.T
    a, b = np.zeros(len(rows)), 0.0
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(kernel @ a + b, -500, 500)))
        slope = np.maximum(p * (1 - p), 1e-9)
        # Newton on (a, b): (K + L2 / slope) a + b = target, sum a = 0
        target = kernel @ a + b + (y - p) / slope
        system = np.ones((len(rows) + 1, len(rows) + 1))
        system[:-1, :-1] = kernel + np.diag(PENALTY / slope)
        system[-1, -1] = 0.0
        solved = np.linalg.solve(system, np.append(target, 0.0))
        done = bool(np.max(np.abs(solved[:-1] - a)) < 1e-8 * (1 + np.max(np.abs(a))))
        a, b = solved[:-1], float(solved[-1])
        if done:
            break
    return Fitted(x.T @ a, b)


def save(fitted: Fitted, out: Path) -> None:
    """Write the weights."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file(
        {"weights": fitted.weights.astype(np.float32), "bias": np.array([fitted.bias], np.float32)}, out
    )


def load(file: Path) -> Fitted:
    """Read them. Raises SetupError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(file)
        weights, bias = tensors["weights"], float(tensors["bias"][0])
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise SetupError(f"{file}: no fitted satisfaction model: {error}") from None
    if weights.ndim != 1 or len(weights) <= SIZES:
        raise SetupError(f"{file}: no fitted satisfaction model: weights of shape {weights.shape}")
    return Fitted(weights, bias)


def _read(path: Path) -> Iterable[tuple[str, str, float]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row: Any = json.loads(text)
        except ValueError as error:
            raise SetupError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise SetupError(f"{path}, line {number}: expected an object")
        yield _row(cast("Mapping[str, Any]", row), f"{path}, line {number}")


def _row(row: Mapping[str, Any], where: str) -> tuple[str, str, float]:
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str):
            raise SetupError(f"{where}: {key} must be a text")
    rating = row.get("rating")
    if isinstance(rating, str) and rating.lower() in GOOD:
        return row["question"], row["answer"], GOOD[rating.lower()]
    if isinstance(rating, int | float) and -1 <= rating <= 5:  # true and false among them
        return row["question"], row["answer"], rating
    raise SetupError(
        f"{where}: rating must be true, false, a number of at most 5 or one of {', '.join(GOOD)}"
    )
