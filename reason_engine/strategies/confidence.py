"""Deep think with confidence: a vote in which weak paths are stopped while they run and strong ones weigh more.

DeepConf, Fu et al. 2025, arXiv:2508.15260, section 3. With P_i the model's distribution at token i, over its k most
likely tokens j:

    C_i  = - 1/k sum_j log P_i(j)              token confidence: high where all but one token are unlikely
    C_Gi = 1/w sum_{t in (i-w, i]} C_t         group confidence: the mean over a sliding window of w tokens
    C    = min_i C_Gi                          a path is as good as its weakest group

A path shorter than the window is one group. Online (section 3.3): a few warm-up paths run to their end; the percentile
of their C that lets `keep` of them through is the threshold. A path that falls below it is aborted at once. The rest
vote, each with its C; drawing stops when the vote is settled.
Departures: the window is a quarter of a typical warm-up path instead of 2,048 tokens, which short paths never fill;
paths come in waves, one engine request each; the vote is settled as any other (`voting/settle.py`) rather than by
the leader's share of all weight, which two early paths can push to 1. Where the engine cannot stop a single path, it
runs on and has no vote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import ClassVar

from pydantic import Field

from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.in_time import in_time
from reason_engine.strategies.voting.settle import Certainty, Rule, Worth
from reason_engine.types import Answer, Draw, Path, Problem, TokenLogprob


@strategies.register("confidence")
class Confidence(Strategy):
    """A confidence-weighted vote over up to n paths; weak ones end early."""

    summary: ClassVar[str] = "A weighted vote; paths of low confidence are stopped while they run"
    paper: ClassVar[str] = "arXiv:2508.15260"
    votes: ClassVar[bool] = True

    n: int = Field(16, ge=1, le=256, description="paths to begin, the warm-up included")
    warmup: int = Field(3, ge=1, le=64, description="paths that run to their end and set the threshold")
    keep: float = Field(1.0, gt=0, le=1, description="share of the warm-up paths that the threshold lets through")
    window: int | None = Field(
        None, ge=1, le=65_536, description="tokens of a group; default: a quarter of a typical path"
    )
    k: int = Field(5, ge=2, le=20, description="likeliest tokens that a token's confidence is taken over")
    adaptive: bool = Field(True, description="draw in waves and stop when the vote is settled")
    confidence: Certainty = None
    worth: Worth = None

    @property
    def width(self) -> int:
        return self.n

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"logprobs"})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Warm up, set the gate, then draw and vote until it is settled."""
        gate: Gate | None = None
        rule = Rule.of(ctx.profile, self.confidence, self.worth)
        weights = dict[int, float]()

        def weigh(path: Path) -> float:
            if gate and path.node not in weights:
                weights[path.node] = gate.weight(path)
            return weights.get(path.node, 0.0)

        ballot = Ballot(self.n, rule if self.adaptive else None, weigh)
        temperature, answer = self.sampling_temperature(ctx), Answer()
        while not ballot.decided and (
            size := in_time(ctx, ballot.wave if gate else min(self.warmup, self.n), ballot.paths)
        ):
            draw = Draw(size, temperature=temperature, logprobs=self.k, final=True, after=len(ballot.paths))
            if gate:
                draw = replace(draw, until=ballot.until(ctx), drop=gate.drop())
            wave = await ctx.sample(ctx.format_prompt("steps"), draw)
            gate = gate or gate_of([path for path in wave if path.finished], self.keep, self.k, self.window)
            for path in wave:
                ctx.record_score(path.node, gate.confidence(path), by="confidence")
            await ballot.count(ctx, wave)
            ctx.note(window=gate.window, threshold=round(gate.threshold, 4), kept=sum(map(bool, weights.values())))
            answer = await ballot.answer(ctx)
            if len(wave) < size:
                break
        return replace(answer, decided=ballot.decided)


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
        """Of its vote: its confidence, if that is not below the threshold, else 0."""
        value = self.confidence(path)
        return value if value >= self.threshold else 0.0

    def drop(self) -> Callable[[int, Sequence[TokenLogprob]], bool]:
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
