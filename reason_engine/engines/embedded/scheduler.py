"""Continuous batching: what waits, what is being read, what runs. One `step` is at most one prompt pass and one token.

A prompt is read once for all its samples. When the store would outgrow its bounds the youngest row is set back to wait;
it goes on later from its own tokens, and since its draws depend on seed and place alone, with the same text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import replace

import torch

from reason_engine.engines.embedded.batch import Batch, sampler_for
from reason_engine.engines.embedded.cache import KeyValues, PrefixCache
from reason_engine.engines.embedded.drafting import MOST, Drafting, Drafts, Method, now
from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import Choose, Start
from reason_engine.engines.embedded.model.adapters import Adapters
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.prefill import Segment, advance, segment, weigh
from reason_engine.engines.embedded.rows import Outbox, Row
from reason_engine.engines.embedded.sampler import Checked
from reason_engine.engines.refusals import room_left
from reason_engine.engines.text import StopFinder, Vocabulary

Job = list[Row] | tuple[Choose, Hashable]
"""What a prompt is read for: rows that share it, or a choice and the space of its prefixes."""


class Scheduler:
    """Drives a decoder. Single-threaded: every method is called from the worker's loop."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        eos_ids: frozenset[int],
        outbox: Outbox,
        *,
        context: int,
        max_rows: int,
        cache_bytes: int,
        prefix_bytes: int,
        prefill_tokens: int,
        draft: Method = "none",
    ) -> None:
        self.decoder, self.vocabulary, self.eos_ids, self.outbox = decoder, vocabulary, eos_ids, outbox
        self.context, self.max_rows, self.cache_bytes = context, max_rows, cache_bytes
        self.prefill_tokens = prefill_tokens
        self.adapters = Adapters(decoder)
        self.prefixes = PrefixCache(prefix_bytes)
        self.drafting = Drafting(decoder.device, draft)
        self.batch = Batch(decoder, KeyValues(decoder.shape, decoder.dtype, decoder.device))
        self._waiting: deque[list[Row]] = deque()
        self._choices: deque[tuple[Choose, int, Hashable]] = deque()
        self._reading: dict[Segment, tuple[Job, int]] = {}

    @property
    def busy(self) -> bool:
        return bool(self.batch.rows or self._reading or self._waiting or self._choices)

    @property
    def running(self) -> int:
        return len(self.batch.rows) + self._reserved

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting))

    @property
    def _reserved(self) -> int:
        return sum(len(job) for job, _ in self._reading.values() if isinstance(job, list))

    @property
    def used_adapters(self) -> set[int]:
        """Adapter slots that open requests depend on."""
        rows = [*self.batch.rows, *(row for group in self._waiting for row in group)]
        reading = {one.adapter for one in self._reading}
        return {row.adapter for row in rows} | reading | {adapter for _, adapter, _ in self._choices}

    def start(self, request: Start, matcher: Matcher | None = None) -> None:
        """Queue a request. Raises UnknownModel for an adapter that is not loaded, ContextLengthExceeded."""
        adapter, space = self.adapters.find(request.adapter)
        ids = self._given(adapter, request.ids)
        sampling = request.sampling
        ends = frozenset(sampling.stop_token_ids)
        ends = ends if sampling.ignore_eos and matcher is None else ends | self.eos_ids
        ask = self.drafting.open(request)
        rows = [
            Row(
                request,
                index,
                sampling.seed + index,
                list(ids),
                len(ids),
                min(self.context, len(ids) + sampling.max_tokens),
                ends,
                self.vocabulary,
                self.vocabulary.detokenizer(request.ids),
                StopFinder(sampling.stop, sampling.include_stop),
                matcher.copy() if matcher is not None else None,
                adapter,
                space,
                len(ids) - len(request.ids),
                tells=index == 0,
                drafts=Drafts(ask) if ask is not None else None,
            )
            for index in range(request.n)
        ]
        before = next(
            (i for i, w in enumerate(self._waiting) if w[0].request.priority > request.priority), None
        )
        self._waiting.insert(len(self._waiting) if before is None else before, rows)

    def choose(self, request: Choose) -> None:
        """Queue a choice. Raises UnknownModel for an adapter that is not loaded."""
        adapter, space = self.adapters.find(request.adapter)
        ids = self._given(adapter, request.ids)
        learned, longest = len(ids) - len(request.ids), max(map(len, request.options))
        room_left(len(ids) + longest - 1, self.context)
        self._choices.append((replace(request, ids=ids, learned=learned), adapter, space))

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End all that is left of a request, or one sample of it; each gets its last piece."""
        gone = [row for row in self.batch.rows if row.request.id == request_id and index in (None, row.index)]
        for row in gone:
            self.batch.leave(row)
        for group in [w for w in self._waiting if w[0].request.id == request_id]:
            gone += drop(group, index)
            if not group:
                self._waiting.remove(group)
        for one, (job, _) in list(self._reading.items()):
            if isinstance(job, list) and job[0].request.id == request_id:
                gone += drop(job, index)
                if not job:
                    del self._reading[one]
            elif isinstance(job, tuple) and job[0].id == request_id:
                del self._reading[one]
        self._choices = deque(c for c in self._choices if c[0].id != request_id)
        for row in gone:
            self.outbox.text(row, row.cut(), None)

    def step(self) -> None:
        """Do one portion of work."""
        self._admit()
        if self._reading:
            self._read()
        if self.batch.rows:
            self._make_room()
            if self.batch.drafting:
                self._step_drafting()
            else:
                drawn = self.batch.step(self.adapters.patch)
                self._take(list(self.batch.rows), drawn.tokens, drawn.logprobs, running=True)
        if not self.busy and self.batch.store.data.nbytes > 2**28:
            self.batch.store.release()

    def _step_drafting(self) -> None:
        """A step in which some row may draft: its drafts are checked where that pays."""
        batch, drafting = self.batch, self.drafting
        rows = list(batch.rows)
        drafts = drafting.plan(rows, batch.room(self.cache_bytes, MOST))
        begun = now(self.decoder.device)
        if drafts is None:
            drawn = batch.step(self.adapters.patch)
            drafting.plain(len(rows), now(self.decoder.device) - begun)
            self._take(rows, drawn.tokens, drawn.logprobs, running=True)
            return
        made = batch.check(drafts, self.adapters.patch)
        drafting.checked(rows, drafts, [one.right for one in made], now(self.decoder.device) - begun)
        for row, draft, one in zip(rows, drafts, made, strict=True):
            taken = self._take_all(row, one)
            row.accepted += min(taken, one.right)
            row.rejected += len(draft) - min(taken, one.right)
        self._leave(rows)

    def _take_all(self, row: Row, made: Checked) -> int:
        """Give a row its tokens up to its end, and tell them; how many it took."""
        wanted = made.logprobs if row.request.sampling.logprobs is not None else None
        for at, token in enumerate(made.tokens, 1):
            text = row.take(token)
            self.outbox.text(row, text, token, row.logprob(token, wanted[at - 1]) if wanted else None)
            if row.finish is not None:
                return at
        return len(made.tokens)

    def _admit(self) -> None:
        """Begin reading what fits, choices first: they are short and someone waits on them to go on."""
        budget = self.prefill_tokens - sum(one.left for one in self._reading)
        while self._choices and budget > 0:
            job, adapter, space = self._choices.popleft()
            one, cached = self._segment(job.ids, adapter, space)
            self._reading[one] = ((job, space), cached)
            budget -= one.left
        while self._waiting and budget > 0:
            group = self._waiting[0]
            room = self._room(len(group), len(group[0].ids))
            if room == 0:
                return
            self._waiting.popleft()
            if room < len(group):
                self._waiting.appendleft(group[room:])
            first = group[0]
            one, cached = self._segment(first.ids, first.adapter, first.space)
            self._reading[one] = (group[:room], cached)
            budget -= one.left

    def _given(self, adapter: int, ids: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens of a prompt as the adapter reads it. Raises ContextLengthExceeded."""
        given = (*self.adapters.learned(adapter), *ids)
        room_left(len(given), self.context)
        return given

    def _room(self, wanted: int, length: int) -> int:
        """How many more rows of that length may run now; always one where nothing else does."""
        taken = self._reserved
        count = min(wanted, self.max_rows - len(self.batch.rows) - taken)
        while count > 0 and self.batch.needs(taken + count, length) > self.cache_bytes:
            count //= 2
        return count if count > 0 or self.batch.rows or taken else 1

    def _make_room(self) -> None:
        """Set the youngest rows back while the next step would outgrow the store's bounds."""
        while len(self.batch.rows) > 1 and self.batch.needs() > self.cache_bytes:
            row = self.batch.rows[-1]
            self.prefixes.add(row.space, row.ids[:-1], self.batch.save(row))
            self.batch.leave(row)
            self._waiting.appendleft([row])

    def _segment(
        self, ids: list[int] | tuple[int, ...], adapter: int, space: Hashable
    ) -> tuple[Segment, int]:
        known, shared = self.prefixes.find(space, ids)
        one = segment(self.decoder, ids, known, shared, adapter)
        return one, one.done

    def _read(self) -> None:
        """One pass over the prompts; those that are whole become rows, or answers to choices."""
        whole = advance(self.decoder, list(self._reading), self.prefill_tokens, self.adapters.patch)
        rows: list[Row] = []
        sources: list[int] = []
        for at, (one, hidden) in enumerate(whole):
            job, cached = self._reading[one]
            if isinstance(job, tuple):
                choice, space = job
                del self._reading[one]
                self.prefixes.add(space, choice.ids, one.kv)
                answer = weigh(self.decoder, choice, one, hidden, cached, self.adapters.patch)
                self.outbox.result(choice.id, answer)
                continue
            self.prefixes.add(job[0].space, tuple(one.ids), one.kv)
            if job[0].tells and len(job[0].ids) == job[0].prompt:
                learned = job[0].learned
                job[0].announced = (job[0].prompt - learned, max(0, cached - learned))
            rows += job
            sources += [at] * len(job)
        if rows:
            last = torch.cat([hidden[-1:] for _, hidden in whole])
            logits = self.decoder.logits(last).index_select(
                0, torch.tensor(sources, device=self.decoder.device)
            )
            drawn = sampler_for(rows, self.decoder).draw(logits)
            self._take(rows, drawn.tokens, drawn.logprobs, running=False)
        for one, _ in whole:
            job = self._reading.pop(one, ([], 0))[0]
            alive = [row for row in job if row.finish is None] if isinstance(job, list) else []
            if alive:
                self.batch.join(alive, one.kv)

    def _take(
        self,
        rows: list[Row],
        tokens: list[int],
        logprobs: list[tuple[float, list[tuple[int, float]]]] | None,
        *,
        running: bool,
    ) -> None:
        """Give each row its token, tell it, and let the finished ones go."""
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            text = row.take(token)
            wanted = logprobs is not None and row.request.sampling.logprobs is not None
            self.outbox.text(
                row, text, token, row.logprob(token, logprobs[i]) if wanted and logprobs else None
            )
        if running:
            self._leave(rows)

    def _leave(self, rows: list[Row]) -> None:
        """Let the finished ones go: only after every row has its tokens, since a row is moved by its length."""
        for row in [row for row in rows if row.finish is not None]:
            self.prefixes.add(row.space, row.ids[:-1], self.batch.save(row))
            self.batch.leave(row)


def drop(rows: list[Row], index: int | None) -> list[Row]:
    """Take one sample's row, or all, out of rows that wait together. What is left goes on telling the prompt."""
    gone = [row for row in rows if index in (None, row.index)]
    rows[:] = [row for row in rows if row not in gone]
    if rows and any(row.tells for row in gone):
        rows[0].tells = True
    return gone
