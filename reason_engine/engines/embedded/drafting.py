"""Which drafts are checked in the next step, and whether it is worth looking for any.

SAM-Decoding (arXiv:2411.10666, section 3.3) lets the draft's length follow the match's; here no more tokens are
drafted than matched. Of those, token j is kept while its chance to be right is worth its price,

    q^j >= extra * B / plain(B)

with q the measured share of right ones after matches of that length (in this search, shrunk to the engine's) and the
costs of `pace`. A step checks drafts if what they promise, plain(B) / B a token, is more than the check costs.

Looking costs too. Every WINDOW steps what was won is set against it; where the balance is negative by more than LOSS
of the time, nothing is looked for during a pause, which doubles up to LONGEST_PAUSE steps. Prompts are taken in at
SHARE of a step's time a step. What is drafted depends on measured times; what comes out does not (`Sampler.check`).

What a step costs, learnt while serving: whether drafts pay is a question of this machine, this model and this batch.

    plain(B)          seconds of a step that gives B rows one token each
    checked(B, X)     plain(B) + fixed + extra * X: the same with X drafted tokens to be checked

Each plain(B) is a running mean that takes no single measurement at more than double or less than half. `fixed` and
`extra` are a least-squares line through decayed sums of the excess of checked steps, an excess counting no more than
half a step and a row's share of a step for each drafted token: one more token costs no more than those that are there.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch

from reason_engine.engines.drafting.sources import CLASSES, Drafter, Hits, Reading, Search, kind_of
from reason_engine.engines.drafting.suffix_automaton import SuffixAutomaton
from reason_engine.engines.embedded.messages import Start
from reason_engine.engines.embedded.rows import Row

Method = Literal["none", "sam", "ngram"]

MOST = 32
"""Tokens of one draft."""
SHORTEST = 2
"""Match below which nothing is drafted."""

MARGIN = 1.15
"""What a check promises must be more than its price by that, since both are estimates."""
EVERY = 16
"""Steps between two looks at what is worth drafting."""
WINDOW, LOSS, PAUSE, LONGEST_PAUSE = 32, 0.01, 64, 512
SHARE, WON_SHARE, FEWEST = 0.04, 0.2, 4
TOKEN_SECONDS = 6e-6
"""What an automaton takes to grow by a token, about."""
BEHIND = 64
"""A drafter that has more than that to catch up with begins anew."""
KEPT_SEARCHES, KEPT_TOKENS = 64, 200_000
CORPUS_TOKENS = 200_000
"""Of given texts; a token takes about half a kilobyte in an automaton."""


class Shared:
    """What the requests of one search share."""

    def __init__(self, corpus: SuffixAutomaton | None, over: Hits) -> None:
        self.search, self.hits = Search(corpus), Hits(over)
        self.lengths: list[tuple[int, list[float]]] = []
        """By class: how many tokens are worth drafting, and what k of them promise."""
        self.stamp = -1


class Ask:
    """One request: its method, until its drafter failed."""

    def __init__(self, request: Start, method: Method, shared: Shared) -> None:
        self.request, self.method, self.shared = request, method, shared
        self.failed = False


class Drafts:
    """A row's drafter: made when first looked at, begun anew where it fell behind."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._drafter: Drafter | None = None
        self._fed = 0
        self.kind = 0

    def look(self, row: Row, most: int) -> tuple[list[int], float]:
        """A draft of at most so many tokens, and how many of them are expected to be right."""
        shared, drafter = self.ask.shared, self._drafter
        if drafter is None or len(row.ids) - self._fed > BEHIND:
            make = shared.search.sam if self.ask.method == "sam" else shared.search.ngram
            drafter = self._drafter = make(self.ask.request.ids)
            self._fed = max(row.prompt, len(row.ids) - BEHIND)
        drafter.feed(row.ids[self._fed :])
        self._fed = len(row.ids)
        length = drafter.find()
        if length < SHORTEST:
            return [], 0.0
        self.kind = kind_of(length)
        worth, promises = shared.lengths[self.kind]
        count = min(worth, length, most)
        if count < 1:
            return [], 0.0
        draft = drafter.draft(count)
        if row.matcher is not None and draft:
            draft = draft[: row.matcher.fits(draft)]
        return draft, promises[len(draft)]


class Drafting:
    """The engine's drafting. `failures` counts requests whose drafter raised."""

    def __init__(self, device: torch.device, method: Method = "none") -> None:
        self.method: Method = method
        self._device, self.failures = device, 0
        self.study = Reading()
        """What of the corpus is still to be taken in, when nothing else is to be done."""
        self._corpus: SuffixAutomaton | None = None
        self.pace = Pace()
        self._hits = Hits()
        self._searches: OrderedDict[str, Shared] = OrderedDict()
        self._steps = self._checks = self._stamp = self._asleep = 0
        self._pause = PAUSE
        self._won = self._spent = self._time = 0.0
        self._share = SHARE
        self._pending: tuple[int, int, float] | None = None
        """Rows, drafted tokens and seconds of the latest check, until it is known what it left to do."""

    def open(self, request: Start) -> Ask | None:
        """What a request's rows draft by; None where they do not."""
        asked = request.sampling.draft
        method: Method = self.method if asked == "default" else asked
        if method == "none":
            return None
        name = request.search or request.id
        shared = self._searches.pop(name, None) or Shared(self._corpus, self._hits)
        self._searches[name] = shared
        while len(self._searches) > KEPT_SEARCHES or (
            len(self._searches) > 1 and sum(len(one.search) for one in self._searches.values()) > KEPT_TOKENS
        ):
            self._searches.popitem(last=False)
        return Ask(request, method, shared)

    def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Draft from these texts too, in place of those before."""
        self._corpus, self.study = SuffixAutomaton(), Reading()
        left = CORPUS_TOKENS
        for text in texts:
            self.study.add(self._corpus.begin(), text[:left])
            left -= min(left, len(text))

    def plan(self, rows: Sequence[Row], room: int) -> list[list[int]] | None:
        """A draft a row, or None where a plain step is better. No row may grow beyond `room` tokens."""
        count = len(rows)
        plain = self.pace.plain(count)
        if self._asleep or not plain:
            self._asleep = max(0, self._asleep - 1)
            return None
        begun = now(self._device)
        self._steps += 1
        if self._steps % EVERY == 1:
            self._stamp += 1
        drafts: list[list[int]] = []
        drafted, promised = 0, 0.0
        for row in rows:
            draft, promise = self._look(row, min(row.limit, room), plain / count)
            drafts.append(draft)
            drafted += len(draft)
            promised += promise
        go = drafted > 0 and self.worth(promised * plain / count, drafted)
        self._spent += now(self._device) - begun
        return drafts if go else None

    def worth(self, gain: float, drafted: int) -> bool:
        """Whether seconds won pay for the check of so many tokens."""
        return gain > MARGIN * (self.pace.fixed + self.pace.extra * drafted)

    def _look(self, row: Row, limit: int, share: float) -> tuple[list[int], float]:
        one = row.drafts
        if one is None or one.ask.failed:
            return [], 0.0
        try:
            if one.ask.shared.stamp != self._stamp:
                self._renew(one.ask, share)
            return one.look(row, min(MOST, limit - len(row.ids) - 1))
        except Exception:  # boundary: whatever a drafter does, the answer goes on without it
            one.ask.failed = True
            self.failures += 1
            return [], 0.0

    def _renew(self, ask: Ask, share: float) -> None:
        """Every few steps: what is worth drafting in a search, and some more of its prompts taken in."""
        shared = ask.shared
        shared.stamp = self._stamp
        shared.lengths = [self._lengths(shared.hits.chance(kind), share) for kind in range(CLASSES)]
        if shared.search.reading:
            seconds = EVERY * self._share * share * ask.request.n
            shared.search.reading.go_on(max(FEWEST, int(seconds / TOKEN_SECONDS)))

    def _lengths(self, chance: float, share: float) -> tuple[int, list[float]]:
        least = self.pace.extra / share
        worth = MOST if least <= 0 else math.floor(math.log(min(least, 1.0)) / math.log(max(chance, 1e-6)))
        promises, left = [0.0], 1.0
        for _ in range(MOST):
            left *= chance
            promises.append(promises[-1] + left)
        return min(MOST, worth), promises

    def plain(self, rows: int, seconds: float) -> None:
        """A plain step was done. The first one after a check pays for the layout that the check left behind."""
        if self._pending and self._pending[0] == rows:
            _, drafted, before = self._pending
            self._pending = None
            self.pace.saw_checked(rows, drafted, before + max(0.0, seconds - self.pace.plain(rows)))
        else:
            self._settle_pending()
            self.pace.saw_plain(rows, seconds)
        self._time += seconds
        self._close_window(rows)

    def checked(self, rows: Sequence[Row], drafts: list[list[int]], right: list[int], seconds: float) -> None:
        """A step was done that checked these drafts; of each so many tokens were right."""
        count, drafted = len(rows), sum(map(len, drafts))
        plain = self.pace.plain(count)
        self._checks += 1
        for row, draft, good in zip(rows, drafts, right, strict=True):
            if draft and row.drafts is not None:
                row.drafts.ask.shared.hits.count(row.drafts.kind, len(draft), good)
        self._settle_pending()
        self._pending = (count, drafted, seconds)
        self._won += sum(right) * plain / count
        self._spent += self.pace.fixed + self.pace.extra * drafted
        self._time += plain
        self._close_window(count)

    def _settle_pending(self) -> None:
        if self._pending:
            self.pace.saw_checked(*self._pending)
            self._pending = None

    def _close_window(self, rows: int) -> None:
        if self._steps < WINDOW:
            return
        if not self._checks:
            self.pace.relax(rows)
        self._steps = self._checks = 0
        balance = self._won - self._spent
        if balance < -LOSS * self._time:
            self._asleep, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = PAUSE
        self._share = WON_SHARE if balance > 0 else SHARE
        self._won = self._spent = self._time = 0.0


RATE = 0.1
KEPT, RELAXED = 0.98, 0.9
FIXED, SPARE = 0.1, 15
"""The line to begin with: a tenth of a plain step, and a token's share if the batch had so many more rows."""
SEEN = (0.0, 8.0)
"""The two places where the first line counts as one measurement each."""


def now(device: torch.device) -> float:
    """A clock for steps: on the CPU this thread's own time, which other processes do not pass."""
    return time.thread_time() if device.type == "cpu" else time.perf_counter()


class Pace:
    """Knows nothing until a plain step was timed."""

    def __init__(self) -> None:
        self._plain: dict[int, float] = {}
        self._sums = [0.0] * 5
        self.fixed = self.extra = 0.0

    def plain(self, rows: int) -> float:
        """Seconds of a plain step of so many rows, 0 where none was timed: the nearest number's, if not its own."""
        if (known := self._plain.get(rows)) is not None:
            return known
        if not self._plain:
            return 0.0
        near = min(self._plain, key=lambda n: (abs(n - rows), n))
        return self._plain[near]

    def saw_plain(self, rows: int, seconds: float) -> None:
        """A plain step took that long."""
        old = self._plain.get(rows)
        if old is None:
            self._plain[rows] = seconds
            if not self._sums[0]:
                self._sums = _prior(rows, seconds)
                self._fit(rows, seconds)
            return
        self._plain[rows] = old + RATE * (min(max(seconds, old / 2), 2 * old) - old)

    def saw_checked(self, rows: int, drafted: int, seconds: float) -> None:
        """A step that checked so many drafted tokens took that long."""
        plain = self.plain(rows)
        over = min(max(seconds - plain, 0.0), plain / 2 + plain / rows * drafted)
        self._mix(KEPT, _sums(drafted, over))
        self._fit(rows, plain)

    def relax(self, rows: int) -> None:
        """Nothing was checked for a while: some of what was learnt gives way to what was assumed."""
        plain = self.plain(rows)
        self._mix(RELAXED, [(1 - RELAXED) * one for one in _prior(rows, plain)])
        self._fit(rows, plain)

    def _mix(self, kept: float, new: list[float]) -> None:
        self._sums = [kept * old + one for old, one in zip(self._sums, new, strict=True)]

    def _fit(self, rows: int, plain: float) -> None:
        w, x, y, xx, xy = self._sums
        spread = xx - x * x / w
        slope = (xy - x * y / w) / spread if spread > 1e-9 else self.extra
        self.extra = min(max(slope, 0.002 * plain), plain / rows)
        self.fixed = max(0.0, (y - self.extra * x) / w)


def _sums(x: float, y: float) -> list[float]:
    return [1.0, x, y, x * x, x * y]


def _prior(rows: int, plain: float) -> list[float]:
    points = [_sums(x, plain * FIXED + x * plain / (rows + SPARE)) for x in SEEN]
    return [sum(values) for values in zip(*points, strict=True)]
