"""How confident a model is along a path: the measure of DeepConf, Fu et al. 2025, arXiv:2508.15260, section 3.

With P_i the model's distribution at token i, over its k most likely tokens j:

    C_i  = - 1/k sum_j log P_i(j)              token confidence: high where all but one token are unlikely
    C_Gi = 1/w sum_{t in (i-w, i]} C_t         group confidence: the mean over a sliding window of w tokens
    C    = min_i C_Gi                          a path is as good as its weakest group

A path shorter than the window is one group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from reason_engine.runtime.draw import Drop
from reason_engine.types import Path, TokenLogprob

SHARE = 4
"""The window is this part of a typical path, unless one is given."""
LONGEST_WINDOW = 2048
FLOOR = -100.0
"""An engine may report minus infinity for a masked token."""


@dataclass
class Groups:
    """The group confidences of one path as it grows."""

    window: int
    k: int
    lowest: float | None = None
    """Of the whole windows so far."""
    recent: deque[float] = field(default_factory=deque[float])
    total: float = 0.0

    def feed(self, tokens: Sequence[TokenLogprob]) -> None:
        """Go on by these tokens; one without alternatives says nothing."""
        for token in tokens:
            if not token.top:
                continue
            self.recent.append(token_confidence(token, self.k))
            self.total += self.recent[-1]
            if len(self.recent) > self.window:
                self.total -= self.recent.popleft()
            if len(self.recent) == self.window:
                mean = self.total / self.window
                self.lowest = mean if self.lowest is None else min(self.lowest, mean)

    @property
    def confidence(self) -> float:
        """Of the path as it stands; 0 where nothing is known."""
        if self.lowest is not None:
            return self.lowest
        return self.total / len(self.recent) if self.recent else 0.0


@dataclass(frozen=True, slots=True)
class Gate:
    """What a path must keep up to: no whole window below `threshold`."""

    window: int
    threshold: float
    k: int

    def confidence(self, path: Path) -> float:
        """The lowest group confidence of a path."""
        groups = Groups(self.window, self.k)
        groups.feed(path.logprobs)
        return groups.confidence

    def weight(self, path: Path) -> float:
        """Of its vote: its confidence, if it came to its end above the threshold, else 0."""
        value = self.confidence(path)
        return value if path.finished and value >= self.threshold else 0.0

    def drop(self) -> Drop:
        """Ends a path of one draw as soon as a whole window of it is below the threshold."""
        paths: dict[int, Groups] = {}

        def falls(index: int, tokens: Sequence[TokenLogprob]) -> bool:
            groups = paths.setdefault(index, Groups(self.window, self.k))
            groups.feed(tokens)
            return groups.lowest is not None and groups.lowest < self.threshold

        return falls


def gate_of(warm: Sequence[Path], keep: float, k: int, window: int | None) -> Gate:
    """The gate that lets this share of the warm-up paths through. Without any, it lets everything through."""
    if window is None:
        typical = median(path.tokens for path in warm) if warm else 0
        window = max(1, min(LONGEST_WINDOW, round(typical / SHARE)))
    open_gate = Gate(window, 0.0, k)
    lows = sorted(open_gate.confidence(path) for path in warm)
    return replace(open_gate, threshold=percentile(lows, 1 - keep)) if lows else open_gate


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the sorted values lies, between two neighbours in proportion."""
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (place - low) * (values[high] - values[low])


def token_confidence(token: TokenLogprob, k: int) -> float:
    """C_i over the k most likely tokens that were recorded."""
    top = token.top[:k]
    return -sum(max(logprob, FLOOR) for _, _, logprob in top) / len(top)
