"""Texts as vectors without a vocabulary: hashed counts of words, pairs of words and letters, and a few sizes.

Feature hashing, Weinberger et al. 2009, arXiv:0902.2206, section 2: x_h = sum over features f with hash(f) = h of
sign(f) count(f), scaled to length 1 so that long texts weigh no more. The hash is CRC-32: the same in every process.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIZES = 6
LONGEST = 20_000


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
