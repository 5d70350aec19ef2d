"""Continuous batching: what waits, what is being read, what runs. One `step` is at most one prompt pass and one token.

A prompt is read once for all its samples, and its cells are kept once. A sample that is set back for memory goes on
later from its own tokens, and since its draws depend on seed and place alone, with the same text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch

from reason_engine.engines import room_left
from reason_engine.engines.embedded.batch import Batch, sampler_of
from reason_engine.engines.embedded.cells.prefixes import PrefixCache
from reason_engine.engines.embedded.drafting import MOST, Drafting, SampleDrafter, now
from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.memory import Memory, default_limit
from reason_engine.engines.embedded.messages import Choose, Generate, OutputBuffer, ReplaceWeights, WorkerConfig
from reason_engine.engines.embedded.model.adapters import AdapterSlots
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.prefill import Segment, advance, new_segment, score_options
from reason_engine.engines.embedded.sample import Sample
from reason_engine.engines.embedded.sampling.sampler import RawLogprob
from reason_engine.engines.text import StopFinder, Vocabulary
from reason_engine.errors import RequestError
from reason_engine.types import Choice


@dataclass(frozen=True, slots=True)
class _PendingChoice:
    """A choice whose prompt, `ids` with the adapter's own `learned` tokens first, is to be read."""

    request: Choose
    ids: tuple[int, ...]
    learned: int
    adapter: int
    space: Hashable


Waiting = list[Sample] | _PendingChoice
"""What a prompt is read for: samples that share it, or a choice."""


class Scheduler:
    """Drives a decoder. Single-threaded: every method is called from the worker's loop."""

    def __init__(
        self,
        decoder: Decoder,
        vocabulary: Vocabulary,
        eos_ids: frozenset[int],
        output: OutputBuffer,
        config: WorkerConfig,
    ) -> None:
        self.decoder, self.vocabulary, self.eos_ids, self.output = decoder, vocabulary, eos_ids, output
        limit = config.cache_bytes or default_limit(decoder.device)
        self.context = config.context or decoder.shape.context
        self.max_rows = config.max_rows
        on_cpu = decoder.device.type == "cpu"
        self.prefill_tokens = config.prefill_tokens if on_cpu else max(config.prefill_tokens, 4096)
        self.adapters = AdapterSlots(decoder.shape, decoder.device)
        self.prefixes = PrefixCache(config.prefix_bytes or default_limit(decoder.device) // 8)
        self.drafting = Drafting(decoder.device, config.draft)
        self.batch = Batch(decoder, self.prefixes)
        self.memory = Memory(self.batch, decoder.shape, limit, self._being_read)
        self._numbers = count()
        self._waiting: deque[list[Sample]] = deque()
        self._choices: deque[_PendingChoice] = deque()
        self._reading: dict[Segment, tuple[Waiting, int]] = {}
        """Segments on their way, with how many of their tokens came from the prefix cache."""

    @property
    def busy(self) -> bool:
        return bool(self.batch.samples or self._reading or self._waiting or self._choices)

    @property
    def running(self) -> int:
        return len(self.batch.samples) + self._reserved

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting))

    @property
    def _reserved(self) -> int:
        return sum(len(group) for group, _ in self._reading.values() if isinstance(group, list))

    @property
    def used_adapters(self) -> set[int]:
        """Adapter slots that open requests depend on."""
        samples = [*self.batch.samples, *(one for group in self._waiting for one in group)]
        return {one.adapter for one in (*samples, *self._reading, *self._choices)}

    def replace_weights(self, request: ReplaceWeights) -> None:
        """Go on with other weights; what was kept of the old ones' keys and values is forgotten. Nothing may run.

        Raises RequestError while adapters are loaded, which hold parts of the old weights, and ModelLoadError.
        """
        if self.adapters.layers is not None:
            raise RequestError("unload the adapters first: they belong to the weights that are loaded")
        self.decoder.replace_weights(request.tensors)
        self.prefixes.clear()

    def start(self, request: Generate, matcher: Matcher | None = None) -> None:
        """Queue a request. Raises UnknownModel for an adapter that is not loaded, ContextLengthExceeded."""
        adapter, space, prompt = self._prompt(request)
        sampling, given = request.sampling, len(prompt)
        ends = frozenset(sampling.stop_token_ids)
        ends = ends if sampling.ignore_eos and matcher is None else ends | self.eos_ids
        limit = min(self.context, given + sampling.max_tokens)
        drafts = sampling.draft != "none" and (sampling.draft, self.drafting.method) != ("default", "none")
        drafting = self.drafting.open(request) if drafts else None
        group: list[Sample] = []
        for index in range(request.n):
            ids, own = list(prompt), matcher.copy() if matcher is not None else None
            text, stops = self.vocabulary.detokenizer(request.ids), StopFinder(sampling.stop, sampling.include_stop)
            drafter = SampleDrafter(drafting, ids, given, limit, own) if drafting else None
            sample = Sample(
                request, index, ids, given, limit, ends, self.vocabulary, text, stops, own, adapter, space,
                learned=given - len(request.ids), reports_prompt=index == 0, drafter=drafter,
                number=next(self._numbers),
            )  # fmt: skip
            group.append(sample)
        before = next((i for i, w in enumerate(self._waiting) if w[0].request.priority > request.priority), None)
        self._waiting.insert(len(self._waiting) if before is None else before, group)

    def choose(self, request: Choose) -> None:
        """Queue a choice. Raises UnknownModel for an adapter that is not loaded, ContextLengthExceeded."""
        adapter, space, ids = self._prompt(request)
        room_left(len(ids) + max(map(len, request.options)) - 1, self.context)
        self._choices.append(_PendingChoice(request, ids, len(ids) - len(request.ids), adapter, space))

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End all that is left of a request, or one sample of it; each gets its last delta."""
        running = self.batch.samples
        gone = [one for one in running if one.request.id == request_id and index in (None, one.index)]
        for sample in gone:
            self.batch.leave(sample)
        for group in [w for w in self._waiting if w[0].request.id == request_id]:
            gone += _drop(group, index)
            if not group:
                self._waiting.remove(group)
        for segment, (group, _) in list(self._reading.items()):
            if isinstance(group, list) and group[0].request.id == request_id:
                gone += _drop(group, index)
                if not group:
                    del self._reading[segment]
            elif isinstance(group, _PendingChoice) and group.request.id == request_id:
                del self._reading[segment]
        self._choices = deque(c for c in self._choices if c.request.id != request_id)
        for sample in gone:
            self.output.add(sample.abort())

    def step(self) -> None:
        """Do one portion of work."""
        self._admit()
        if self._reading:
            self._read()
        if self.batch.samples:
            self._decode(self.memory.make_room(1, MOST + 1 if self.batch.drafting else 1, self._set_back))
        if not self.busy:
            self.memory.rest()

    def _decode(self, may_draft: bool) -> None:
        """A token for every running sample; drafts are checked where some sample may draft and it pays."""
        batch, drafting, device = self.batch, self.drafting, self.decoder.device
        samples, drafts, begun = list(batch.samples), None, 0.0
        drafters = [one.drafter for one in samples] if batch.drafting else []
        if drafters:
            drafts = drafting.plan(drafters, self.context if may_draft else 0)
            begun = now(device)
        if drafts is None:
            drawn = batch.step(self.adapters.layers)
            if drafters:
                drafting.observe_plain(len(samples), now(device) - begun)
            self._extend(samples, drawn.tokens, drawn.logprobs)
        else:
            made = batch.check(drafts, self.adapters.layers)
            right = [one.right for one in made]
            drafting.observe_checked(drafters, drafts, right, now(device) - begun)
            for sample, draft, one in zip(samples, drafts, made, strict=True):
                self.output.add(sample.extend(one.tokens, one.logprobs, len(draft)))
        self._leave(samples)

    def _extend(self, samples: Sequence[Sample], tokens: Sequence[int], logprobs: Sequence[RawLogprob] | None) -> None:
        """Give each sample its token, and report it."""
        for i, sample in enumerate(samples):
            self.output.add(sample.extend(tokens[i : i + 1], logprobs and logprobs[i : i + 1]))

    def _leave(self, samples: Sequence[Sample]) -> None:
        """Let the finished ones go: only after every sample has its tokens, since a row is moved by its length."""
        finished = [one for one in samples if one.finish is not None]
        for sample in finished:
            self.batch.save(sample)
            self.batch.leave(sample)
        if finished:
            self.memory.give_way()

    def _admit(self) -> None:
        """Begin reading what fits, choices first: they are short and someone waits on them to go on."""
        budget = self.prefill_tokens - sum(one.left for one in self._reading)
        while self._choices and budget > 0:
            choice = self._choices.popleft()
            budget -= self._begin_reading(choice, choice.ids, choice.adapter, choice.space)
        while self._waiting and budget > 0:
            group = self._waiting[0]
            room = self._room(group)
            if room == 0:
                return
            self._waiting.popleft()
            if room < len(group):
                self._waiting.appendleft(group[room:])
            first = group[0]
            budget -= self._begin_reading(group[:room], first.ids, first.adapter, first.space)

    def _begin_reading(self, group: Waiting, ids: Sequence[int], adapter: int, space: Hashable) -> int:
        """How many tokens are to be read."""
        ids = tuple(ids)
        known, shared = self.prefixes.find(space, ids)
        segment = new_segment(self.decoder, ids, known, shared, adapter)
        self._reading[segment] = (group, segment.done)
        self.memory.give_way()
        return segment.left

    def _prompt(self, request: Generate | Choose) -> tuple[int, Hashable, tuple[int, ...]]:
        """The adapter's slot, the space of its prefixes and the prompt's tokens as it reads them. Raises UnknownModel,
        ContextLengthExceeded."""
        adapter, space, ids = 0, 0, request.ids
        if request.adapter is not None:
            adapter, space = self.adapters.find(request.adapter)
            ids = (*self.adapters.learned(adapter), *ids)
        room_left(len(ids), self.context)
        return adapter, space, ids

    def _room(self, group: Sequence[Sample]) -> int:
        """How many more samples may run now; always one where nothing else does."""
        running = self.running
        most = min(len(group), self.max_rows - running)
        return self.memory.fitting(group, most) or (0 if running else 1)

    def _set_back(self, sample: Sample) -> None:
        self._waiting.appendleft([sample])

    def _being_read(self) -> Iterator[tuple[Sequence[Sample], int]]:
        for segment, (group, _) in self._reading.items():
            yield group if isinstance(group, list) else (), len(segment.ids)

    def _read(self) -> None:
        """One pass over the prompts; those that are whole become running samples, or answers to choices."""
        whole = advance(self.decoder, list(self._reading), self.prefill_tokens, self.adapters.layers)
        read: list[tuple[Segment, list[Sample]]] = []
        last: list[torch.Tensor] = []
        sources: list[int] = []
        for segment, hidden in whole:
            group, cached = self._reading.pop(segment)
            if isinstance(group, _PendingChoice):
                self._answer(group, segment, hidden, cached)
                continue
            first = group[0]
            if first.reports_prompt and len(first.ids) == first.prompt:
                first.prompt_counts = (first.prompt - first.learned, max(0, cached - first.learned))
            sources += [len(read)] * len(group)
            read.append((segment, group))
            last.append(hidden[-1:])
        if not read:
            return
        samples = [one for _, group in read for one in group]
        source = torch.tensor(sources, device=self.decoder.device)
        drawn = sampler_of(samples, self.decoder).draw(self.decoder.logits(torch.cat(last))[source])
        self._extend(samples, drawn.tokens, drawn.logprobs)
        for segment, group in read:
            if alive := [one for one in group if one.finish is None]:
                self.batch.join(alive, segment.kv, self.memory.shared(alive[0]))
            self.prefixes.add(group[0].space, segment.ids, segment.kv)

    def _answer(self, choice: _PendingChoice, prompt: Segment, hidden: torch.Tensor, cached: int) -> None:
        self.prefixes.add(choice.space, choice.ids, prompt.kv)
        options, learned = choice.request.options, choice.learned
        probabilities, mass = score_options(self.decoder, options, prompt, hidden, self.adapters.layers)
        self.output.add_result(
            choice.request.id, Choice(probabilities, mass, len(choice.ids) - learned, max(0, cached - learned))
        )


def _drop(group: list[Sample], index: int | None) -> list[Sample]:
    """Take one sample, or all, out of those that wait together. What is left goes on to report the prompt."""
    gone = [one for one in group if index in (None, one.index)]
    group[:] = [one for one in group if one not in gone]
    if group and any(one.reports_prompt for one in gone):
        group[0].reports_prompt = True
    return gone
