"""Which drafts are checked in the next step, and whether it is worth looking for any.

SAM-Decoding (arXiv:2411.10666, section 3.3) lets the draft's length follow the match's; here no more tokens are
drafted than matched. Of those, token j is kept while its chance to be right is worth its price,

    q^j >= extra * B / plain(B)

with q the measured share of right ones after matches of that length (in this search, shrunk to the engine's) and the
costs of `DraftCostModel`. A step checks drafts if what they promise, plain(B) / B a token, is more than the check
costs.

Looking costs too. Every WINDOW steps what was won is set against it; where the balance is negative by more than LOSS
of the time, nothing is looked for during a pause, which doubles up to LONGEST_PAUSE steps. Prompts are indexed at
INDEX_SHARE of a step's time a step. What is drafted depends on measured times; what comes out does not
(`Sampler.check`).
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from reason_engine.engines import draft_sources
from reason_engine.engines.draft_sources import LENGTH_CLASSES, AcceptanceRates, IndexQueue, SearchIndex
from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import DraftMethod, Generate
from reason_engine.engines.suffix_automaton import SuffixAutomaton

MOST, SHORTEST = 32, 2
"""Tokens of one draft, and of the match below which nothing is drafted."""
MARGIN = 1.15
"""What a check promises must be more than its price by that, since both are estimates."""
RENEWAL = 16
"""Steps after which a search works out anew what is worth drafting."""
WINDOW, LOSS, PAUSE, LONGEST_PAUSE = 32, 0.01, 64, 512
INDEX_SHARE, INDEX_SHARE_WON, FEWEST_INDEXED = 0.04, 0.2, 4
"""Of a step's time for the prompts, more where drafting has won some; and the fewest tokens at a time."""
TOKEN_SECONDS, BEHIND = 6e-6, 64
"""What an automaton takes to grow by a token, about; a drafter that has more tokens to catch up with begins anew."""
KEPT_SEARCHES, KEPT_TOKENS, CORPUS_TOKENS = 64, 200_000, 200_000
"""The last of given texts; a token takes about half a kilobyte in an automaton."""


def now(device: torch.device) -> float:
    """A clock for steps: on the CPU this thread's own time, which other processes do not pass."""
    return time.thread_time() if device.type == "cpu" else time.perf_counter()


class SearchDrafting:
    """What the requests of one search share."""

    def __init__(self, corpus: SuffixAutomaton | None, prior: AcceptanceRates) -> None:
        self.index, self.rates = SearchIndex(corpus), AcceptanceRates(prior)
        self.lengths: list[tuple[int, list[float]]] = []
        """By length class: how many tokens are worth drafting, and what k of them promise."""
        self.renewed = -1


@dataclass(slots=True)
class RequestDrafting:
    """One request: its method, until its drafter failed."""

    request: Generate
    method: DraftMethod
    search: SearchDrafting
    failed: bool = False


class SampleDrafter:
    """Drafts for one sample, whose `ids` grow: its drafter is made when first asked, and anew where it fell behind.

    `prompt` of the ids were given, at most `limit` are wanted; drafts follow `matcher`."""

    def __init__(
        self, request: RequestDrafting, ids: list[int], prompt: int, limit: int, matcher: Matcher | None
    ) -> None:
        self.request, self.limit = request, limit
        self._ids, self._prompt, self._matcher = ids, prompt, matcher
        self._drafter: draft_sources.Drafter | None = None
        self._fed = 0
        self.length_class = 0
        """Of the latest match."""

    def draft(self, room: int) -> tuple[list[int], float]:
        """A draft that leaves it within `room` tokens, and how many of its tokens are expected to be right."""
        search, drafter, ids = self.request.search, self._drafter, self._ids
        if drafter is None or len(ids) - self._fed > BEHIND:
            make = search.index.sam if self.request.method == "sam" else search.index.ngram
            drafter = self._drafter = make(self.request.request.ids)
            self._fed = max(self._prompt, len(ids) - BEHIND)
        drafter.feed(ids[self._fed :])
        self._fed = len(ids)
        length = drafter.find()
        if length < SHORTEST:
            return [], 0.0
        self.length_class = draft_sources.length_class(length)
        worth, promises = search.lengths[self.length_class]
        count = min(worth, length, MOST, min(self.limit, room) - len(ids) - 1)
        if count < 1:
            return [], 0.0
        draft = drafter.draft(count)
        if self._matcher is not None and draft:
            draft = draft[: self._matcher.fits(draft)]
        return draft, promises[len(draft)]


class Drafting:
    """The engine's drafting. `failures` counts requests whose drafter raised."""

    def __init__(self, device: torch.device, method: DraftMethod = "none") -> None:
        self.method: DraftMethod = method
        self._device, self.failures = device, 0
        self.corpus_queue = IndexQueue()
        """What of the corpus is still to be indexed, when nothing else is to be done."""
        self._corpus: SuffixAutomaton | None = None
        self.costs = DraftCostModel()
        self._rates = AcceptanceRates()
        self._searches: OrderedDict[str, SearchDrafting] = OrderedDict()
        self._steps = self._checks = self._renewals = self._pause_left = 0
        self._pause = PAUSE
        self._won = self._spent = self._time = 0.0
        self._index_share = INDEX_SHARE
        self._pending: tuple[int, int, float] | None = None
        """Rows, drafted tokens and seconds of the latest check, until it is known what it left to do."""

    def open(self, request: Generate) -> RequestDrafting | None:
        """What a request's samples draft by; None where they do not."""
        asked = request.sampling.draft
        method: DraftMethod = self.method if asked == "default" else asked
        if method == "none":
            return None
        name = request.search or request.id
        search = self._searches.pop(name, None) or SearchDrafting(self._corpus, self._rates)
        self._searches[name] = search
        while len(self._searches) > KEPT_SEARCHES or (
            len(self._searches) > 1 and sum(len(one.index) for one in self._searches.values()) > KEPT_TOKENS
        ):
            self._searches.popitem(last=False)
        return RequestDrafting(request, method, search)

    def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Draft from these texts too, in place of those before."""
        self._corpus, self.corpus_queue = SuffixAutomaton(), IndexQueue()
        left = CORPUS_TOKENS
        for text in texts:
            self.corpus_queue.add(self._corpus.begin(), text[:left])
            left -= min(left, len(text))

    def plan(self, drafters: Sequence[SampleDrafter | None], room: int) -> list[list[int]] | None:
        """A draft a row, or None where a plain step is better. No row may grow beyond `room` tokens."""
        count = len(drafters)
        plain = self.costs.plain(count)
        if self._pause_left or not plain:
            self._pause_left = max(0, self._pause_left - 1)
            return None
        begun = now(self._device)
        self._steps += 1
        if self._steps % RENEWAL == 1:
            self._renewals += 1
        made = [self._draft(one, room, plain / count) for one in drafters]
        drafts = [draft for draft, _ in made]
        drafted, promised = sum(map(len, drafts)), sum(promise for _, promise in made)
        pays = drafted > 0 and self.pays(promised * plain / count, drafted)
        self._spent += now(self._device) - begun
        return drafts if pays else None

    def pays(self, gain: float, drafted: int) -> bool:
        """Whether seconds won pay for the check of so many tokens."""
        return gain > MARGIN * (self.costs.fixed + self.costs.extra * drafted)

    def _draft(self, drafter: SampleDrafter | None, room: int, share: float) -> tuple[list[int], float]:
        if drafter is None or drafter.request.failed:
            return [], 0.0
        try:
            if drafter.request.search.renewed != self._renewals:
                self._renew(drafter.request, share)
            return drafter.draft(room)
        except Exception:  # boundary: whatever a drafter does, the answer goes on without it
            drafter.request.failed = True
            self.failures += 1
            return [], 0.0

    def _renew(self, request: RequestDrafting, share: float) -> None:
        """Every few steps: what is worth drafting in a search, and some more of its prompts indexed."""
        search = request.search
        search.renewed = self._renewals
        search.lengths = [self._lengths(search.rates.chance(one), share) for one in range(LENGTH_CLASSES)]
        if search.index.queue:
            seconds = RENEWAL * self._index_share * share * request.request.n
            search.index.queue.advance(max(FEWEST_INDEXED, int(seconds / TOKEN_SECONDS)))

    def _lengths(self, chance: float, share: float) -> tuple[int, list[float]]:
        least = self.costs.extra / share
        worth = MOST if least <= 0 else math.floor(math.log(min(least, 1.0)) / math.log(max(chance, 1e-6)))
        promises, left = [0.0], 1.0
        for _ in range(MOST):
            left *= chance
            promises.append(promises[-1] + left)
        return min(MOST, worth), promises

    def observe_plain(self, rows: int, seconds: float) -> None:
        """A plain step was done. The first one after a check pays for the layout that the check left behind."""
        if self._pending and self._pending[0] == rows:
            _, drafted, before = self._pending
            self._pending = None
            self.costs.observe_checked(rows, drafted, before + max(0.0, seconds - self.costs.plain(rows)))
        else:
            self._settle_pending()
            self.costs.observe_plain(rows, seconds)
        self._time += seconds
        self._close_window(rows)

    def observe_checked(
        self, drafters: Sequence[SampleDrafter | None], drafts: list[list[int]], right: list[int], seconds: float
    ) -> None:
        """A step was done that checked these drafts; of each so many tokens were right."""
        count, drafted = len(drafters), sum(map(len, drafts))
        plain = self.costs.plain(count)
        self._checks += 1
        for one, draft, good in zip(drafters, drafts, right, strict=True):
            if draft and one is not None:
                one.request.search.rates.observe(one.length_class, len(draft), good)
        self._settle_pending()
        self._pending = (count, drafted, seconds)
        self._won += sum(right) * plain / count
        self._spent += self.costs.fixed + self.costs.extra * drafted
        self._time += plain
        self._close_window(count)

    def _settle_pending(self) -> None:
        if self._pending:
            self.costs.observe_checked(*self._pending)
            self._pending = None

    def _close_window(self, rows: int) -> None:
        if self._steps < WINDOW:
            return
        if not self._checks:
            self.costs.relax(rows)
        self._steps = self._checks = 0
        balance = self._won - self._spent
        if balance < -LOSS * self._time:
            self._pause_left, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        else:
            self._pause = PAUSE
        self._index_share = INDEX_SHARE_WON if balance > 0 else INDEX_SHARE
        self._won = self._spent = self._time = 0.0


RATE = 0.1
KEPT, RELAXED = 0.98, 0.9
FIXED, SPARE = 0.1, 15
"""The line to begin with: a tenth of a plain step, and a token's share if the batch had so many more rows."""
PRIOR_AT = (0.0, 8.0)
"""The two places where the first line counts as one measurement each."""


class DraftCostModel:
    """What a step costs, learnt while serving: whether drafts pay depends on this machine, model and batch.

    plain(B)          seconds of a step that gives B rows one token each
    checked(B, X)     plain(B) + fixed + extra * X: the same with X drafted tokens to be checked

    Each plain(B) is a running mean that takes no single measurement at more than double or less than half. `fixed`
    and `extra` are a least-squares line through decayed sums of the excess of checked steps, an excess counting no more
    than half a step and a row's share of a step for each drafted token: one more token costs no more than those that
    are there. It knows nothing until a plain step was timed.
    """

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

    def observe_plain(self, rows: int, seconds: float) -> None:
        """A plain step took that long."""
        old = self._plain.get(rows)
        if old is None:
            self._plain[rows] = seconds
            if not self._sums[0]:
                self._sums = _prior(rows, seconds)
                self._fit(rows, seconds)
            return
        self._plain[rows] = old + RATE * (min(max(seconds, old / 2), 2 * old) - old)

    def observe_checked(self, rows: int, drafted: int, seconds: float) -> None:
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
    points = [_sums(x, plain * FIXED + x * plain / (rows + SPARE)) for x in PRIOR_AT]
    return [sum(values) for values in zip(*points, strict=True)]
