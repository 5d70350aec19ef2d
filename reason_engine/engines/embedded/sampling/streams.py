"""Random numbers that depend on a sample's seed and a token's place, and on nothing else.

They are counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): u = mix(mix(seed) + place *
golden), with SplitMix64's finaliser as mix. So a sample draws the same alone, in any batch, and after an interruption.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = (np.uint64(n) for n in (30, 27, 31, 11))


def rng_streams(seeds: list[int]) -> NDArray[np.uint64]:
    """One stream a seed; any integer is a seed."""
    return _mix(np.array([seed % 2**64 for seed in seeds], dtype=np.uint64) + GOLDEN)


def rng_uniforms(streams_B: NDArray[np.uint64], places_B: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The number in [0, 1) of each stream at each place."""
    return (_mix(streams_B + places_B * GOLDEN) >> _11).astype(np.float64) * 2.0**-53


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)
