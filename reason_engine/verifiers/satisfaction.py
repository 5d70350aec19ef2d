"""`satisfaction`: how likely users are to be content with an answer, fitted to their feedback.

    P(content | question, answer) = sigmoid(w x + b)

Logistic regression: minimises  sum_i log(1 + exp(-y_i (w x_i + b))) + L2/2 |w|²  over rows with y = 1 (content) or -1,
by Newton's method in the space the rows span (w = X' a), which is exact and small: feedback comes by the hundreds,
features by the thousands.

x is a text without a vocabulary: hashed counts of words, pairs of words and letters, and a few sizes. Feature hashing,
Weinberger et al. 2009, arXiv:0902.2206, section 2: x_h = sum over features f with hash(f) = h of sign(f) count(f),
scaled to length 1 so that long texts weigh no more. The hash is CRC-32: the same in every process.

A request names a file only by the operator's name for it (`satisfaction: {NAME: PATH}` in the settings), never by a
path.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.errors import CapabilityMissing, RequestError, SetupError, VerifierError
from reason_engine.jsonl import JsonLines
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Satisfaction", "fit_file"]

WIDTH, SIZES = 4096, 6
"""Hashed features, and the others."""
PENALTY, ROUNDS = 0.05, 50
MOST_ROWS = 5_000
"""Rows that are fitted to, the newest (last): the system has their number squared of entries."""
LONGEST = 20_000
"""Characters of a question and of an answer that are read."""
GOOD = {"good": True, "bad": False, "up": True, "down": False, "positive": True, "negative": False}


@verifiers.register("satisfaction")
class Satisfaction(BaseModel):
    """By the operator's name for the fitted file; one that is alone needs none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=200, description="which fitted file, where there are several")

    _fitted: Fitted | None = PrivateAttr(None)

    def bind(self, site: Site) -> Satisfaction:
        """Raises CapabilityMissing where the operator has no fitted file, RequestError for a name that is none."""
        files = site.powers.satisfaction
        if not files:
            raise CapabilityMissing(
                "the verifier 'satisfaction' needs a file fitted to users' feedback, and this server has none; fit one "
                "with reason_engine.verifiers.satisfaction.fit_file and name it in the setting `satisfaction`",
                param=site.field,
                code="capability_missing",
            )
        name = next(iter(files)) if self.model is None and len(files) == 1 else self.model
        if name is None or name not in files:
            asked = "which file?" if name is None else f"no fitted file named {name!r};"
            raise RequestError(f"{asked} one of: {', '.join(files)}", param=f"{site.field}.params.model")
        bound = self.model_copy()
        try:
            bound._fitted = load(files[name])
        except SetupError as error:
            raise VerifierError(f"verifier satisfaction: {error}") from None
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In (0, 1)."""
        assert self._fitted is not None, "not bound"
        values = [self._fitted.content(problem.asked, path.text) for path in paths]
        return [Score(value, "satisfaction", self.model or "") for value in values]


@dataclass(frozen=True)
class Fitted:
    """`weights` over hashed features and sizes, `bias`."""

    weights: np.ndarray
    bias: float

    def content(self, question: str, answer: str) -> float:
        """P(the user is content)."""
        x = vector(question, answer, len(self.weights) - SIZES)
        return float(_sigmoid(x @ self.weights + self.bias))


def fit_file(rows: FilePath, out: FilePath) -> dict[str, float]:
    """Fit to a JSON Lines file of {question, answer, rating} and write `out`; returns what was read.

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

    rows = rows[-MOST_ROWS:]
    if len({good for _, _, good in rows}) < 2:
        raise SetupError("feedback of both kinds is needed, content and not")
    x = np.stack([vector(question, answer, width) for question, answer, _ in rows])
    y = np.array([1.0 if good else 0.0 for _, _, good in rows])
    kernel = x @ x.T
    a, b = np.zeros(len(rows)), 0.0
    for _ in range(ROUNDS):
        p = _sigmoid(kernel @ a + b)
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


def save(fitted: Fitted, out: FilePath) -> None:
    """Write the weights."""
    import numpy as np
    from safetensors.numpy import save_file

    bias = np.array([fitted.bias], np.float32)
    save_file({"weights": fitted.weights.astype(np.float32), "bias": bias}, out)


def load(file: FilePath) -> Fitted:
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


def _sigmoid(x: Any) -> Any:
    import numpy as np

    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def _read(path: FilePath) -> Iterator[tuple[str, str, float]]:
    """(question, answer, rating) of each line. Raises SetupError naming the one at fault."""
    try:
        lines = [line for line in JsonLines(path).lines(unfinished="read") if line.data.strip()]
    except OSError as error:
        raise SetupError(f"{path}: {error}") from None
    for line in lines:
        where = f"{path}, line {line.number}"
        try:
            row: Any = json.loads(line.data.rstrip(b"\r\n"))
        except ValueError as error:
            raise SetupError(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise SetupError(f"{where}: expected an object")
        found = cast("dict[str, Any]", row)
        for key in ("question", "answer"):
            if not isinstance(found.get(key), str):
                raise SetupError(f"{where}: {key} must be a text")
        rating = found.get("rating")
        if isinstance(rating, str):
            rating = GOOD.get(rating.lower())
        if not isinstance(rating, int | float) or not -1 <= rating <= 5:  # true and false among them
            words = ", ".join(GOOD)
            raise SetupError(f"{where}: rating must be true, false, a number of at most 5 or one of {words}")
        yield found["question"], found["answer"], rating


def vector(question: str, answer: str, width: int) -> np.ndarray:
    """`width` hashed numbers, then SIZES others."""
    import numpy as np

    x = np.zeros(width + SIZES)
    for feature in _features(question[:LONGEST], answer[:LONGEST]):
        code = zlib.crc32(feature.encode("utf-8", "replace"))
        x[(code >> 1) % width] += 1 if code & 1 else -1
    x[:width] /= max(1.0, float(np.linalg.norm(x[:width])))
    x[width:] = _sizes(question, answer)
    return x


def _features(question: str, answer: str) -> Iterator[str]:
    words = _WORD.findall(answer.lower())
    asked = set(_WORD.findall(question.lower()))
    yield from (f"w {word}" for word in words)
    yield from (f"p {a} {b}" for a, b in pairwise(words))
    yield from (f"q {word}" for word in words if word in asked)
    text = f" {' '.join(answer.lower().split())} "
    yield from (f"c {text[i : i + 3]}" for i in range(len(text) - 2))


def _sizes(question: str, answer: str) -> tuple[float, ...]:
    """Length, lines, figures, repetition, how it ends, how much longer than the question; each about 0 to 2."""
    words = _WORD.findall(answer.lower())
    return (
        math.log1p(len(answer)) / 8,
        math.log1p(answer.count("\n")) / 4,
        sum(c.isdigit() for c in answer) / max(1, len(answer)),
        1 - len(set(words)) / max(1, len(words)),
        float(answer.rstrip()[-1:] in ".!?)") if answer else 0.0,
        math.log1p(len(answer) / max(1, len(question))) / 4,
    )


_WORD = re.compile(r"\w+")
