"""Near-duplicate texts by MinHash, found in bands.

Broder 1997, "On the resemblance and containment of documents": the share of equal minima of two signatures estimates
the Jaccard similarity of their shingle sets,

    J(A, B) = |A ∩ B| / |A ∪ B| ≈ (1/p) Σ_i [min h_i(A) = min h_i(B)],    h_i(x) = (a_i x + b_i mod 2^64) >> 32.

Candidates share one of b bands of r values, which happens with probability 1 - (1 - J^r)^b (Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", section 3.4). r is the largest that finds a pair at the threshold with
probability 0.99. Shingles are runs of five words, as in Lee et al. 2022 (arXiv:2107.06499).

Departures: a candidate is confirmed by the estimate, not by the exact similarity, so that texts need not be kept (a
standard error of 0.035 at J = 0.8); texts of fewer than five words are one shingle. A kept text costs 512 bytes of
signature and about 2 KB of bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from reason_engine.data.texts import digest, grams

PERMUTATIONS, SHINGLE, FOUND = 128, 5, 0.99
Signature = NDArray[np.uint32]


class MinHash:
    """Draws the hash functions once, from a fixed seed."""

    def __init__(self, permutations: int = PERMUTATIONS) -> None:
        draw = np.random.Generator(np.random.PCG64(1997))
        top = np.iinfo(np.uint64).max
        self._a = draw.integers(0, top, (permutations, 1), np.uint64, endpoint=True) | np.uint64(1)
        self._b = draw.integers(0, top, (permutations, 1), np.uint64, endpoint=True)

    def signature(self, words: Sequence[str]) -> Signature:
        """The minima over the shingles of a text that is given as words."""
        shingles = {digest(gram) >> 32 for gram in grams(words, SHINGLE)} or {digest(" ".join(words)) >> 32}
        values = np.fromiter(shingles, np.uint64, len(shingles))
        least = np.full(len(self._a), np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(values), _BLOCK):  # in blocks, so that a long text needs little memory
            hashed = (self._a * values[start : start + _BLOCK] + self._b) >> np.uint64(32)
            least = np.minimum(least, hashed.min(axis=1).astype(np.uint32))
        return least


class NearIndex:
    """The signatures kept so far."""

    def __init__(self, threshold: float, permutations: int = PERMUTATIONS) -> None:
        self.threshold, self._rows = threshold, band_rows(threshold, permutations)
        self._bands = permutations // self._rows
        self._held: dict[int, list[int]] = {}
        self._signatures = np.empty((256, permutations), np.uint32)
        self._count = 0

    def near(self, signature: Signature) -> list[tuple[int, float]]:
        """Every kept text at or above the threshold, most similar first."""
        found = sorted({one for key in self._keys(signature) for one in self._held.get(key, ())})
        if not found:
            return []
        shares = (self._signatures[found] == signature).mean(axis=1)
        pairs = [(one, float(share)) for one, share in zip(found, shares, strict=True)]
        return sorted((pair for pair in pairs if pair[1] >= self.threshold), key=lambda pair: -pair[1])

    def add(self, signature: Signature) -> int:
        """Keep a signature; its number."""
        if self._count == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[self._count] = signature
        for key in self._keys(signature):
            self._held.setdefault(key, []).append(self._count)
        self._count += 1
        return self._count - 1

    def _keys(self, signature: Signature) -> list[int]:
        size, whole = 4 * self._rows, signature.tobytes()
        return [
            int.from_bytes(
                blake2b(whole[band * size : (band + 1) * size], digest_size=8, salt=bytes([band])).digest()
            )
            for band in range(self._bands)
        ]


def band_rows(threshold: float, permutations: int) -> int:
    """The most values a band may have so that a pair at the threshold is found with probability 0.99."""
    good = [r for r in range(1, 33) if 1 - (1 - threshold**r) ** (permutations // r) >= FOUND]
    return max(good, default=1)


_BLOCK = 4096
